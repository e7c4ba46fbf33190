"""Settings of Pascal VOC's format: XML files with boxes, and index masks."""

from dataclasses import dataclass
from pathlib import Path

from mbv2det.config import DataConfig
from mbv2det.data.annotations import Annotations, union
from mbv2det.data.folder import MaskSource, read_masks
from mbv2det.data.formats.classes import (
    MASK_FILE_SETTINGS,
    choose_classes,
    mask_reading,
    value_label_map,
)
from mbv2det.data.formats.data_format import DataFormat, SplitRequest
from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.errors import ConfigError
from mbv2det.labels import VOC_NAMES, LabelMap, with_background


@dataclass(frozen=True)
class VOCSplit:
    """Lists of images in VOC's layout, or folders of other names.

    Attributes:
        split: The list in ImageSets/Main for boxes and in ImageSets/Segmentation for masks, or
            several lists.
        year: The year of VOC, such as 2012, or one year for each list.
        mask_split: The list in ImageSets/Segmentation where it differs from split.
        mask_year: The year of the masks where it differs from year.
        list: A file with one image name per line, instead of year and split.
        images: The folder of images.
        annotations: The folder of XML files, which have the names of the images. It may be the
            folder of images.
        masks: The folder of index masks; SegmentationClass by default, then SegmentationClassAug.
    """

    split: str | tuple[str, ...] | None = None
    year: int | tuple[int, ...] = 2012
    mask_split: str | tuple[str, ...] | None = None
    mask_year: int | tuple[int, ...] | None = None
    list: str | None = None
    images: str = "JPEGImages"
    annotations: str = "Annotations"
    masks: str | None = None


def _read(request: SplitRequest[VOCSplit]) -> Annotations:
    with_boxes = choose_classes(request.data, _read_boxes(request)) if request.boxes else None
    with_masks = _read_masks(request) if request.masks else None
    if with_boxes is not None and with_masks is not None:
        return union(with_boxes, with_masks)
    annotations = with_boxes or with_masks
    assert annotations is not None
    return annotations


def _read_boxes(request: SplitRequest[VOCSplit]) -> Annotations:
    split = request.split
    return read_voc(
        [
            VOCSource(
                images=image_list.folder / split.images,
                annotations=image_list.folder / split.annotations,
                list_file=image_list.path("Main"),
            )
            for image_list in _image_lists(request, split.split, split.year)
        ],
        every_image=request.data.missing_labels != "no_objects",
    )


def _read_masks(request: SplitRequest[VOCSplit]) -> Annotations:
    data, split = request.data, request.split
    names, years = split.mask_split or split.split, split.mask_year or split.year
    folders = (split.masks,) if split.masks else ("SegmentationClass", "SegmentationClassAug")
    image_lists = _image_lists(request, names, years)
    sources = [
        MaskSource(
            images=image_list.folder / split.images,
            masks=tuple(image_list.folder / name for name in folders),
            list_file=image_list.path("Segmentation"),
        )
        for image_list in image_lists
    ]
    # The user's list file is also the list of images with boxes: some of them may have no mask.
    is_users_list = image_lists[0].split is None
    annotations = read_masks(
        sources,
        _label_map(data),
        data.ignore_index,
        every_image=not (request.boxes and is_users_list),
        reading=mask_reading(data),
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


def _label_map(data: DataConfig) -> LabelMap:
    """Returns the names of the values in the masks."""
    names = data.mask_classes if isinstance(data.mask_classes, tuple) else None
    return value_label_map(data, names or with_background(VOC_NAMES))


@dataclass(frozen=True)
class _ImageList:
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


def _image_lists(
    request: SplitRequest[VOCSplit],
    names: str | tuple[str, ...] | None,
    years: int | tuple[int, ...],
) -> list[_ImageList]:
    """Returns a list for each (year, split), or one list if a list file or no split is set."""
    root, key, list_file = request.root, request.key, request.split.list
    if list_file is not None or names is None:
        return [_ImageList(root, file=list_file)]
    names = (names,) if isinstance(names, str) else names
    years = (years,) * len(names) if isinstance(years, int) else years
    if len(years) != len(names):
        raise ConfigError(
            f"{key}: expected as many years as splits, got {len(years)} and {len(names)} "
            f"({', '.join(names)}); mask_split and mask_year may differ from split and year"
        )
    folders = [root / f"VOC{year}" for year in years]
    return [
        _ImageList(folder if folder.is_dir() else root, split=name)
        for folder, name in zip(folders, names, strict=True)
    ]


FORMAT = DataFormat(
    VOCSplit,
    _read,
    MASK_FILE_SETTINGS | {"missing_labels"},
    draws_masks=False,
)
