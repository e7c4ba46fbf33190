"""The splits of a configured data set, in any of the formats."""

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
    """Reads the annotation of one split, in the configured classes.

    Args:
        data: Settings of the data set.
        split: Settings of the split.
        key: Configuration key of the split, for messages.
        boxes: Whether to read boxes.
        masks: Whether to read masks.

    Raises:
        ConfigError: If the settings do not specify where the split is.
        DataError: If a file is missing or damaged.
    """
    root = Path(data.root)
    if data.embedded:
        ensure_shapes(root)
    if not root.is_dir():
        raise ConfigError(f"data.root: expected a folder, found none at {root}")
    if boxes and data.format == "folder":
        raise ConfigError(
            "data.format: expected coco or voc for boxes, got folder, which has only masks"
        )
    readers = {"coco": _read_coco, "voc": _read_voc, "folder": _read_folder}
    annotations = readers[data.format](data, split, key, boxes, masks)
    if annotations.masks is not None and len(annotations.masks.label_map) > IGNORE_INDEX:
        raise ConfigError(
            f"data.mask_classes: expected at most {IGNORE_INDEX} labels, "
            f"got the {len(annotations.masks.label_map)} of {annotations.name}"
        )
    return annotations


def _read_coco(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    if split.annotations is None or split.images is None:
        raise ConfigError(
            f"{key}: expected {key}.annotations (a JSON file) and {key}.images (a folder), both "
            "relative to data.root, for COCO; one of them is missing"
        )
    for setting, value in (("data.mask_values", data.mask_values), (f"{key}.masks", split.masks)):
        if masks and value is not None:
            raise ConfigError(
                f"{setting}: expected none, since COCO's masks are drawn from outlines, got {value}"
            )
    root = Path(data.root)
    annotations = read_coco(root / split.annotations, root / split.images, masks=masks)
    annotations = _choose_classes(data, annotations)
    assert annotations.objects is not None
    if masks:
        names = with_background(annotations.objects.label_map.names)
        if data.mask_classes == "voc":
            names = with_background(VOC_NAMES)
        elif data.mask_classes is not None:
            names = data.mask_classes
            # Raises an error for an unknown class.
            annotations.objects.label_map.choose([name for name in names if name != BACKGROUND])
        annotations = annotations.with_mask_label_map(LabelMap.of_masks(names))
    return annotations if boxes else replace(annotations, objects=None)


def _choose_classes(data: DataConfig, annotations: Annotations) -> Annotations:
    """Returns the split with the objects of the configured classes."""
    assert annotations.objects is not None
    if data.classes == "auto" or not len(annotations.objects.label_map):
        return annotations
    return annotations.with_label_map(annotations.objects.label_map.choose(data.classes))


def _read_voc(
    data: DataConfig, split: SplitConfig, key: str, boxes: bool, masks: bool
) -> Annotations:
    with_boxes = _choose_classes(data, _read_voc_boxes(data, split, key)) if boxes else None
    with_masks = _read_voc_masks(data, split, key, joint=boxes) if masks else None
    if with_boxes is not None and with_masks is not None:
        return union(with_boxes, with_masks)
    annotations = with_boxes or with_masks
    assert annotations is not None
    return annotations


def _read_voc_boxes(data: DataConfig, split: SplitConfig, key: str) -> Annotations:
    image_lists = _voc_image_lists(Path(data.root), key, split.list, split.split, split.year)
    return read_voc(
        [
            VOCSource(
                images=image_list.folder / (split.images or "JPEGImages"),
                annotations=image_list.folder / (split.annotations or "Annotations"),
                list_file=image_list.path("Main"),
            )
            for image_list in image_lists
        ]
    )


def _read_voc_masks(data: DataConfig, split: SplitConfig, key: str, *, joint: bool) -> Annotations:
    names, years = split.mask_split or split.split, split.mask_year or split.year
    folders = (split.masks,) if split.masks else ("SegmentationClass", "SegmentationClassAug")
    image_lists = _voc_image_lists(Path(data.root), key, split.list, names, years)
    sources = [
        MaskSource(
            images=image_list.folder / (split.images or "JPEGImages"),
            masks=tuple(image_list.folder / name for name in folders),
            list_file=image_list.path("Segmentation"),
        )
        for image_list in image_lists
    ]
    # The user's list file is also the list of images with boxes: some of them may have no mask.
    is_users_list = image_lists[0].split is None
    annotations = read_masks(
        sources, _voc_label_map(data), data.ignore_index, every_image=not (joint and is_users_list)
    )
    if data.mask_classes is not None or data.classes == "auto":
        return annotations
    unknown = [name for name in data.classes if name not in VOC_NAMES]
    if unknown:
        raise ConfigError(
            f"data.classes: expected classes of VOC, which VOC's masks have, got {unknown[0]!r}; "
            "for other masks, set data.mask_classes to the names of the values 0, 1, ..."
        )
    assert annotations.masks is not None
    chosen = annotations.masks.label_map.choose(with_background(data.classes))
    return annotations.with_mask_label_map(chosen)


def _voc_label_map(data: DataConfig) -> LabelMap:
    """Returns the names of the values in the masks."""
    names = data.mask_classes if isinstance(data.mask_classes, tuple) else None
    return _mask_label_map(data, names or with_background(VOC_NAMES))


@dataclass(frozen=True)
class _VOCImageList:
    """A list of images in VOC's layout: a split of a year, a file of any name, or all images.

    Attributes:
        folder: Folder of a year, which contains the folders of images and annotations.
        split: Name of a split of VOC; None for a list file or all images.
        file: Path of a list file, relative to the folder; None without one.
    """

    folder: Path
    split: str | None = None
    file: str | None = None

    def path(self, subfolder: str) -> Path | None:
        """Returns the list file in the subfolder Main or Segmentation; None for all images."""
        if self.file is not None:
            return self.folder / self.file
        return (
            None if self.split is None else self.folder / f"ImageSets/{subfolder}/{self.split}.txt"
        )


def _voc_image_lists(
    root: Path,
    key: str,
    list_file: str | None,
    names: str | tuple[str, ...] | None,
    years: int | tuple[int, ...],
) -> list[_VOCImageList]:
    """Returns a list for each (year, split), or one list if a list file or no split is set."""
    if list_file is not None or names is None:
        return [_VOCImageList(root, file=list_file)]
    names = (names,) if isinstance(names, str) else names
    years = (years,) * len(names) if isinstance(years, int) else years
    if len(years) != len(names):
        raise ConfigError(
            f"{key}: expected as many years as splits, got {len(years)} and {len(names)} "
            f"({', '.join(names)}); mask_split and mask_year may differ from split and year"
        )
    folders = [root / f"VOC{year}" for year in years]
    return [
        _VOCImageList(folder if folder.is_dir() else root, split=name)
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
            "got auto; a folder of masks has no names"
        )
    names = with_background(VOC_NAMES) if names == "voc" else names
    return read_masks([source], _mask_label_map(data, names), data.ignore_index)


def _mask_label_map(data: DataConfig, names: tuple[str, ...]) -> LabelMap:
    """Returns the label map of names and their values in the masks."""
    values = data.mask_values or tuple(range(len(names)))
    if len(values) != len(names):
        raise ConfigError(
            f"data.mask_values: expected {len(names)} values, one for each of {', '.join(names)}; "
            f"got {len(values)}"
        )
    return LabelMap(names, values)
