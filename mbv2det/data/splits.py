"""From the data section of a configuration to the annotation of a split, in any format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.annotations import Annotations, union
from mbv2det.data.coco import read_coco
from mbv2det.data.folder import MaskSource, read_masks
from mbv2det.data.shapes import ensure_shapes
from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.errors import ConfigError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap


def read_split(
    data: DataConfig, split: SplitConfig, key: str, *, boxes: bool, masks: bool
) -> Annotations:
    """The annotation of one split, in the classes asked for.

    Args:
        data: The data set.
        split: One of its splits.
        key: Of the split in the configuration, for messages.
        boxes: Whether boxes are wanted.
        masks: Whether masks are.

    Raises:
        ConfigError: For settings that do not tell where the split lies.
        DataError: For files that are missing or damaged.
    """
    root = Path(data.root)
    if data.embedded:
        ensure_shapes(root)
    if not root.is_dir():
        raise ConfigError(f"data.root: expected a folder, found none at {root}")
    found = _READERS[data.format](data, split, key, boxes, masks)
    if found.objects is None or data.classes == "auto":
        return found
    return found.with_labels(found.objects.labels.choose(data.classes))


def _read_coco(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    if split.annotations is None or split.images is None:
        raise ConfigError(
            f"{key}: COCO needs {key}.annotations (a JSON file) and {key}.images (a folder), "
            "relative to data.root"
        )
    root = Path(data.root)
    found = read_coco(root / split.annotations, root / split.images, masks=masks)
    assert found.objects is not None
    if masks:
        names = _mask_names(data, found.objects.labels.names)
        found = found.with_mask_labels(LabelMap.of_masks(names))
    return found if boxes else replace(found, objects=None)


def _read_voc(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    root = Path(data.root)
    boxed = masked = None
    if boxes:
        places = _voc_places(root, split, key, split.split)
        boxed = read_voc(
            [
                VOCSource(
                    images=place.folder / (split.images or "JPEGImages"),
                    annotations=place.folder / (split.annotations or "Annotations"),
                    list_file=place.list_file("Main"),
                )
                for place in places
            ]
        )
    if masks:
        folders = (split.masks,) if split.masks else ("SegmentationClass", "SegmentationClassAug")
        places = _voc_places(root, split, key, split.mask_split or split.split)
        sources = [
            MaskSource(
                images=place.folder / (split.images or "JPEGImages"),
                masks=tuple(place.folder / name for name in folders),
                list_file=place.list_file("Segmentation"),
            )
            for place in places
        ]
        masked = _read_index_masks(data, sources, VOC_NAMES)
    if boxed is None or masked is None:
        found = boxed or masked
        assert found is not None
        return found
    return union(boxed, masked)


@dataclass(frozen=True)
class _VOCPlace:
    """One of VOC's lists of images: a split of a year, or a file of any name, or all images."""

    folder: Path
    split: str | None = None
    file: str | None = None

    def list_file(self, kind: str) -> Path | None:
        """Where the list of the kind, Main or Segmentation, lies."""
        if self.file is not None:
            return self.folder / self.file
        return None if self.split is None else self.folder / f"ImageSets/{kind}/{self.split}.txt"


def _voc_places(
    root: Path, split: SplitConfig, key: str, names: str | tuple[str, ...] | None
) -> list[_VOCPlace]:
    """Each (year, split), or the one folder that uses names of its own."""
    if split.list is not None or names is None:
        return [_VOCPlace(root, file=split.list)]
    names = (names,) if isinstance(names, str) else names
    years = (split.year,) * len(names) if isinstance(split.year, int) else split.year
    if len(years) != len(names):
        raise ConfigError(
            f"{key}: expected as many years as splits, got {len(years)} and {len(names)}"
        )
    folders = [root / f"VOC{year}" for year in years]
    return [
        _VOCPlace(folder if folder.is_dir() else root, split=name)
        for folder, name in zip(folders, names, strict=True)
    ]


def _read_folder(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    if boxes:
        raise ConfigError("data.format: folder holds masks only; boxes need coco or voc")
    root = Path(data.root)
    source = MaskSource(
        images=root / (split.images or "images"),
        masks=(root / (split.masks or "masks"),),
        list_file=None if split.list is None else root / split.list,
    )
    if data.classes == "auto" and not isinstance(data.mask_classes, tuple):
        raise ConfigError(
            "data.classes: expected the names of the masks' values 0, 1, ... in that order, "
            "got auto: a folder of masks has no names"
        )
    return _read_index_masks(data, [source], None)


_READERS = {"coco": _read_coco, "voc": _read_voc, "folder": _read_folder}


def _read_index_masks(
    data: DataConfig, sources: Sequence[MaskSource], known: tuple[str, ...] | None
) -> Annotations:
    """Masks in files, whose values mean the configured names.

    Args:
        data: The data set.
        sources: Lists of images.
        known: Names of the values from 1 on, where the format fixes them; else all names are the
            configuration's, background among them where there is one.
    """
    names = _mask_names(data, known)
    in_files = names
    if known is not None and set(names) <= {BACKGROUND, *known}:
        in_files = (BACKGROUND, *known)
    values = data.mask_values or tuple(range(len(in_files)))
    if len(values) != len(in_files):
        raise ConfigError(
            f"data.mask_values: expected {len(in_files)}, one for each of "
            f"{', '.join(in_files)}; got {len(values)}"
        )
    found = read_masks(sources, LabelMap(in_files, values), data.ignore_index)
    if names == in_files:
        return found
    return found.with_mask_labels(
        LabelMap(names, tuple(values[in_files.index(name)] for name in names))
    )


def _mask_names(data: DataConfig, known: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the masks' labels: asked for as they are, or background and the known classes."""
    if data.mask_classes == "voc":
        return (BACKGROUND, *VOC_NAMES)
    if data.mask_classes is not None:
        return data.mask_classes
    classes = (known or ()) if data.classes == "auto" else data.classes
    return classes if known is None or BACKGROUND in classes else (BACKGROUND, *classes)
