"""Settings of YOLO's format."""

from dataclasses import dataclass

from mbv2det.data.annotations import Annotations
from mbv2det.data.formats.classes import choose_labels
from mbv2det.data.formats.data_format import DataFormat, SplitRequest
from mbv2det.data.listed_images import listed_images
from mbv2det.data.yolo import read_yolo
from mbv2det.data.yolo_file import YOLOFile, read_yolo_file
from mbv2det.errors import ConfigError


@dataclass(frozen=True)
class YOLOSplit:
    """Images and text files with the names of the images.

    The text file of an image is in the folder `labels` beside the folder `images`, or beside the
    image.

    Attributes:
        annotations: `data.yaml`, or a file with one class name per line, such as `classes.txt`.
        split: Name of the split in that file, or several; train or val by default.
        images: A folder of images, or a file that lists images, instead of a split.
        list: A file with one image name per line, relative to data.root, that chooses some of
            these images.
    """

    annotations: str = "data.yaml"
    split: str | tuple[str, ...] | None = None
    images: str | None = None
    list: str | None = None


def _read(request: SplitRequest[YOLOSplit]) -> Annotations:
    file = read_yolo_file(request.root / request.split.annotations, request.root)
    split = read_yolo(
        request.root,
        file,
        _entries(request, file),
        every_image=request.data.missing_labels == "error",
        masks=request.masks,
    )
    if request.split.list is not None:
        split = listed_images(split, request.root, request.root / request.split.list)
    return choose_labels(request, split)


def _entries(request: SplitRequest[YOLOSplit], file: YOLOFile) -> tuple[str, ...]:
    split, key = request.split, request.key
    if split.images is not None:
        if split.split is not None:
            raise ConfigError(f"{key}: expected {key}.split or {key}.images, got both")
        return (split.images,)
    default = key.rsplit(".", 1)[-1]
    if default == "val" and "val" not in file.splits and "valid" in file.splits:
        default = "valid"
    names = default if split.split is None else split.split
    names = (names,) if isinstance(names, str) else names
    for name in names:
        if name not in file.splits:
            known = ", ".join(file.splits) or "none"
            raise ConfigError(
                f"{key}.split: expected one of the splits in {file.path} ({known}), got {name}; or "
                f"set {key}.images"
            )
    return tuple(entry for name in names for entry in file.splits[name])


FORMAT = DataFormat(YOLOSplit, _read, frozenset({"missing_labels"}))
