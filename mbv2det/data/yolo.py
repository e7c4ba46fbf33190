"""YOLO's text files: one per image, one object per line, in fractions of the image.

A line is a class and a box (`class cx cy width height`) or a class and a polygon
(`class x1 y1 x2 y2 x3 y3 ...`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbv2det.console import track
from mbv2det.data.annotated_image import AnnotatedImage, AnnotatedObject, to_annotations
from mbv2det.data.annotations import Annotations
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import files_below, find_file, read_list, read_text, refuse_outside
from mbv2det.data.images import SUFFIXES, image_size
from mbv2det.data.yolo_file import YOLOFile
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

_MANY_FILES = 2000  # from this number on, a progress bar is shown
_BOX_COLUMNS = 5
_SMALLEST_POLYGON = 7  # columns: a class and three points
_LARGEST = 1.5  # fraction of the image; a larger number is one of pixels


@dataclass(frozen=True)
class _ImageFile:
    """An image file.

    Attributes:
        id: Its path below the folder that was searched, or as a list names it, without suffix.
        path: Path of the file.
    """

    id: str
    path: Path


def read_yolo(
    root: Path,
    file: YOLOFile,
    entries: Sequence[str],
    *,
    every_image: bool = False,
    masks: bool = False,
) -> Annotations:
    """Reads the images of folders and lists as one split.

    Args:
        root: Folder of the data set, outside of which nothing is read.
        file: The classes, and how many numbers keypoints add to a box.
        entries: Folders of images, image lists (.txt) or images, relative to the root.
        every_image: Whether an image without a label file is an error. If not, it is an image
            without objects.
        masks: Whether to also read polygons, as masks of background and all classes.

    Raises:
        DataError: If a file is missing or damaged, or if no image has a label file.
    """
    faults = FaultCounts()
    files = [f for entry in entries for f in _image_files(root, entry, faults)]
    quiet = len(files) < _MANY_FILES
    images, unlabelled = [], []
    for image in track(files, f"Reading {entries[0]}", quiet=quiet):
        size, labels = image_size(image.path), _label_file(image.path)
        if not labels.is_file():
            unlabelled.append(image.path)
        objects = _read_labels(labels, file, size) if labels.is_file() else []
        images.append(AnnotatedImage(image.id, str(image.path), size, objects, str(labels)))
    _count_unlabelled(unlabelled, len(files), every_image, faults)
    label_map = LabelMap(file.names, tuple(range(len(file.names))))
    name = f"{file.path}: {', '.join(entries)}"
    return to_annotations(name, images, faults, label_map=label_map, outlines=masks)


def _count_unlabelled(
    paths: Sequence[Path], num_images: int, every_image: bool, faults: FaultCounts
) -> None:
    if not paths:
        return
    if every_image or len(paths) == num_images:
        raise DataError(
            f"{_label_file(paths[0])}: expected the labels of {paths[0]}, found none "
            f"({len(paths)} of {num_images} images have no label file)"
        )
    for path in paths:
        faults.add("images without a label file, taken for images without objects", path.name)


def _image_files(root: Path, entry: str, faults: FaultCounts) -> Iterator[_ImageFile]:
    """Yields the images of an entry: a folder, a list or one image."""
    path = root / entry
    refuse_outside(root, path, "data.yaml")
    if path.suffix.lower() == ".txt":
        yield from _listed_images(root, path, faults)
    elif path.suffix.lower() in SUFFIXES and path.is_file():
        yield _ImageFile(Path(entry).with_suffix("").as_posix(), path)
    else:
        for relative in sorted(files_below(path, SUFFIXES, faults)):
            yield _ImageFile(relative.with_suffix("").as_posix(), path / relative)


def _listed_images(root: Path, path: Path, faults: FaultCounts) -> Iterator[_ImageFile]:
    for number, line in enumerate(read_list(path), start=1):
        for folder in dict.fromkeys((path.parent if line.startswith("./") else root, path.parent)):
            found = find_file(folder, line, root)
            if found is not None:
                break
        else:
            refuse_outside(root, root / line, f"{path}: line {number}")
            raise DataError(f"{path}: line {number}: expected an image, found none at {line}")
        if found != line:
            faults.add("images named with folders of another machine, found by their name", line)
        yield _ImageFile(Path(found).with_suffix("").as_posix(), folder / found)


def _label_file(image: Path) -> Path:
    """Returns the label file of an image: in `labels` instead of `images`, or beside it."""
    beside = image.with_suffix(".txt")
    parts = list(beside.parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
        labels = Path(*parts)
        if labels.is_file() or not beside.is_file():
            return labels
    return beside


def _read_labels(path: Path, file: YOLOFile, size: tuple[int, int]) -> list[AnnotatedObject]:
    lines = enumerate(read_text(path, "labels").splitlines(), start=1)
    return [_read_line(f"{path}: line {n}", line, file, size) for n, line in lines if line.strip()]


def _read_line(where: str, line: str, file: YOLOFile, size: tuple[int, int]) -> AnnotatedObject:
    class_text, *texts = re.split(r"[\s,]+", line.strip())
    name = _class_name(where, class_text, file.names)
    is_pose = file.num_keypoint_values > 0
    if is_pose and len(texts) == _BOX_COLUMNS - 1 + file.num_keypoint_values:
        texts = texts[: _BOX_COLUMNS - 1]
    values = [_fraction(where, text) for text in texts]
    height, width = size
    if len(values) == _BOX_COLUMNS - 1:
        cx, cy, w, h = values
        x_min, x_max = (cx - w / 2) * width, (cx + w / 2) * width
        y_min, y_max = (cy - h / 2) * height, (cy + h / 2) * height
        return AnnotatedObject(name, (x_min, y_min, x_max, y_max))
    if is_pose or len(values) < _SMALLEST_POLYGON - 1 or len(values) % 2:
        raise DataError(
            f"{where}: expected a class and a box (4 numbers: centre x, centre y, width, height) "
            f"or a polygon (6 numbers or more: x, y, ...), got {len(values)} numbers"
        )
    polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
    return AnnotatedObject.of_polygons(name, [polygon])


def _class_name(where: str, text: str, names: Sequence[str]) -> str:
    if not re.fullmatch(r"\d{1,6}(\.0*)?", text, re.ASCII):
        raise DataError(f"{where}: expected the number of a class first, got {text!r:.80}")
    index = int(float(text))
    if index >= len(names):
        raise DataError(
            f"{where}: expected a class from 0 to {len(names) - 1}, got {index}: there are "
            f"{len(names)} names"
        )
    return names[index]


def _fraction(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: expected numbers, got {text!r:.80}") from None
    if not -_LARGEST < value < _LARGEST:  # False for NaN, too
        raise DataError(
            f"{where}: expected fractions of the image (0 to 1), got {text}; divide x by the width "
            "and y by the height of the image"
        )
    return value
