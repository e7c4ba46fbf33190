"""From the data section of a configuration to the annotation of a split, in any format."""

from dataclasses import dataclass, replace
from pathlib import Path

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.annotations import Annotations, union
from mbv2det.data.coco import read_coco
from mbv2det.data.folder import MaskSource, read_masks
from mbv2det.data.shapes import ensure_shapes
from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.errors import ConfigError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap, with_background
from mbv2det.structures import IGNORE_INDEX


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
    if boxes and data.format == "folder":
        raise ConfigError("data.format: folder holds masks only; boxes need coco or voc")
    readers = {"coco": _read_coco, "voc": _read_voc, "folder": _read_folder}
    found = readers[data.format](data, split, key, boxes, masks)
    if found.masks is not None and len(found.masks.labels) > IGNORE_INDEX:
        raise ConfigError(
            f"data.mask_classes: expected at most {IGNORE_INDEX} labels, "
            f"got the {len(found.masks.labels)} of {found.name}"
        )
    return found


def _read_coco(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    if split.annotations is None or split.images is None:
        raise ConfigError(
            f"{key}: COCO needs {key}.annotations (a JSON file) and {key}.images (a folder), "
            "relative to data.root"
        )
    for setting, value in (("data.mask_values", data.mask_values), (f"{key}.masks", split.masks)):
        if masks and value is not None:
            raise ConfigError(f"{setting}: coco's masks are drawn from its outlines; got {value}")
    root = Path(data.root)
    found = _chosen(data, read_coco(root / split.annotations, root / split.images, masks=masks))
    assert found.objects is not None
    if masks:
        names = with_background(found.objects.labels.names)
        if data.mask_classes == "voc":
            names = with_background(VOC_NAMES)
        elif data.mask_classes is not None:
            names = data.mask_classes
            found.objects.labels.choose([name for name in names if name != BACKGROUND])
        found = found.with_mask_labels(LabelMap.of_masks(names))
    return found if boxes else replace(found, objects=None)


def _chosen(data: DataConfig, found: Annotations) -> Annotations:
    """The objects of the classes asked for."""
    if data.classes == "auto":
        return found
    assert found.objects is not None
    return found.with_labels(found.objects.labels.choose(data.classes))


def _read_voc(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    boxed = _chosen(data, _read_voc_boxes(data, split, key)) if boxes else None
    masked = _read_voc_masks(data, split, key, joint=boxes) if masks else None
    if boxed is not None and masked is not None:
        return union(boxed, masked)
    found = boxed or masked
    assert found is not None
    return found


def _read_voc_boxes(data: DataConfig, split: SplitConfig, key: str) -> Annotations:
    places = _voc_places(Path(data.root), key, split.list, split.split, split.year)
    return read_voc(
        [
            VOCSource(
                images=place.folder / (split.images or "JPEGImages"),
                annotations=place.folder / (split.annotations or "Annotations"),
                list_file=place.list_file("Main"),
            )
            for place in places
        ]
    )


def _read_voc_masks(data: DataConfig, split: SplitConfig, key: str, *, joint: bool) -> Annotations:
    names, years = split.mask_split or split.split, split.mask_year or split.year
    folders = (split.masks,) if split.masks else ("SegmentationClass", "SegmentationClassAug")
    places = _voc_places(Path(data.root), key, split.list, names, years)
    sources = [
        MaskSource(
            images=place.folder / (split.images or "JPEGImages"),
            masks=tuple(place.folder / name for name in folders),
            list_file=place.list_file("Segmentation"),
        )
        for place in places
    ]
    # A list of the user's own is about boxes as well: not all of its images need have masks.
    own_list = places[0].split is None
    found = read_masks(
        sources, _voc_labels(data), data.ignore_index, every_image=not (joint and own_list)
    )
    if data.mask_classes is not None or data.classes == "auto":
        return found
    unknown = [name for name in data.classes if name not in VOC_NAMES]
    if unknown:
        raise ConfigError(
            f"data.classes: {unknown[0]!r} is none of VOC's classes, whose values the masks are "
            "taken to have; data.mask_classes names the values 0, 1, ... of other masks"
        )
    assert found.masks is not None
    return found.with_mask_labels(found.masks.labels.choose(with_background(data.classes)))


def _voc_labels(data: DataConfig) -> LabelMap:
    """What the values of the masks mean."""
    own = data.mask_classes if isinstance(data.mask_classes, tuple) else None
    return _index_labels(data, own or with_background(VOC_NAMES))


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
    root: Path,
    key: str,
    list_file: str | None,
    names: str | tuple[str, ...] | None,
    years: int | tuple[int, ...],
) -> list[_VOCPlace]:
    """Each (year, split), or the one folder that uses names of its own."""
    if list_file is not None or names is None:
        return [_VOCPlace(root, file=list_file)]
    names = (names,) if isinstance(names, str) else names
    years = (years,) * len(names) if isinstance(years, int) else years
    if len(years) != len(names):
        raise ConfigError(
            f"{key}: expected as many years as splits, got {len(years)} and {len(names)} "
            f"({', '.join(names)}); mask_split and mask_year may differ from split and year"
        )
    folders = [root / f"VOC{year}" for year in years]
    return [
        _VOCPlace(folder if folder.is_dir() else root, split=name)
        for folder, name in zip(folders, names, strict=True)
    ]


def _read_folder(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    root = Path(data.root)
    source = MaskSource(
        images=root / (split.images or "images"),
        masks=(root / (split.masks or "masks"),),
        list_file=None if split.list is None else root / split.list,
    )
    names = data.classes if data.mask_classes is None else data.mask_classes
    if names == "auto":
        raise ConfigError(
            "data.classes: expected the names of the masks' values 0, 1, ... in that order, "
            "got auto: a folder of masks has no names"
        )
    names = with_background(VOC_NAMES) if names == "voc" else names
    return read_masks([source], _index_labels(data, names), data.ignore_index)


def _index_labels(data: DataConfig, names: tuple[str, ...]) -> LabelMap:
    """Names with the values that they have in the masks."""
    values = data.mask_values or tuple(range(len(names)))
    if len(values) != len(names):
        raise ConfigError(
            f"data.mask_values: expected {len(names)}, one for each of {', '.join(names)}; "
            f"got {len(values)}"
        )
    return LabelMap(names, values)
