"""Pascal VOC's XML annotation of boxes."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from mbv2det.data.annotations import Annotations, FaultCounts
from mbv2det.data.file_lists import (
    existing_folder,
    files_by_stem,
    read_list,
    without_column,
    without_suffix,
)
from mbv2det.data.images import SUFFIXES
from mbv2det.data.objects import Objects
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

_MANY_FILES = 2000  # from this number on, a progress bar is shown


@dataclass(frozen=True)
class VOCSource:
    """Folders and list file of some images with boxes.

    Attributes:
        images: Folder of the image files.
        annotations: Folder of XML files with the same stems.
        list_file: Text file with one stem per line; None for every XML file.
    """

    images: Path
    annotations: Path
    list_file: Path | None

    def stems(self) -> list[str]:
        """Returns the stems of the images, in order.

        Raises:
            DataError: If the folder of XML files or the list is missing.
        """
        existing_folder(self.annotations)
        if self.list_file is None:
            return sorted(p.stem for p in self.annotations.glob("*.xml"))
        names = [without_column(line) for line in read_list(self.list_file)]
        return [Path(without_suffix(name, (*SUFFIXES, ".xml"))).name for name in names]


@dataclass(frozen=True)
class _Object:
    """One annotated object.

    Attributes:
        name: Name of its class.
        box: xyxy pixels, continuous coordinates.
        difficult: VOC's flag of objects that detectors need not detect.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class _AnnotatedImage:
    """One image with its objects.

    Attributes:
        stem: Name without suffix.
        path: Path of the image file.
        size: (height, width); zeros if the XML file has no size.
        objects: Objects whose boxes are not degenerate.
    """

    stem: str
    path: str
    size: tuple[int, int]
    objects: list[_Object]


def read_voc(sources: Sequence[VOCSource]) -> Annotations:
    """Reads one or several lists of images (such as 07+12) as one split.

    The classes are the names that occur, sorted: none in a split without objects. VOC counts pixels
    from 1 and includes the last one: its box (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1,
    xmax, ymax). Objects with xmin == xmax or ymin == ymax are degenerate: they are dropped and
    counted.

    Raises:
        DataError: If a file is missing, or if an object lacks its name or box.
    """
    faults = FaultCounts()
    images = [image for source in sources for image in _read_images(source, faults)]
    objects = [o for image in images for o in image.objects]
    name = ", ".join(str(s.list_file or s.annotations) for s in sources)
    names = sorted({o.name for o in objects})
    label_map = LabelMap(tuple(names), tuple(range(1, len(names) + 1)))
    boxes = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    annotations = Annotations(
        name=name,
        image_ids=np.array([image.stem for image in images]),
        files=np.array([image.path for image in images]),
        sizes=np.array([image.size for image in images], np.int64),
        objects=Objects.group_by_image(
            label_map,
            len(images),
            np.repeat(np.arange(len(images)), [len(image.objects) for image in images]),
            boxes=boxes,
            labels=np.array([label_map.label_of_name[o.name] for o in objects], np.int64),
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            difficult=np.array([o.difficult for o in objects], bool),
        ),
        faults=faults,
    )
    annotations.count_bad_boxes()
    return annotations


def _read_images(source: VOCSource, faults: FaultCounts) -> Iterator[_AnnotatedImage]:
    stems = source.stems()
    image_files = files_by_stem(source.images, SUFFIXES)
    quiet = len(stems) < _MANY_FILES
    for stem in track(stems, f"Reading {source.annotations}", disable=quiet):
        path = source.annotations / f"{stem}.xml"
        if stem not in image_files:
            raise DataError(f"{source.images / stem}.*: expected the image of {path}, found none")
        size, objects = _read_xml(path)
        usable = [o for o in objects if o.box[2] > o.box[0] + 1 and o.box[3] > o.box[1] + 1]
        for _ in range(len(objects) - len(usable)):
            faults.add("degenerate boxes (zero width or height) dropped", path.name)
        yield _AnnotatedImage(stem, str(source.images / image_files[stem]), size, usable)


def _read_xml(path: Path) -> tuple[tuple[int, int], list[_Object]]:
    """Reads (height, width), zeros if missing, and all objects of one annotation file."""
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: expected an annotation, found none") from None
    except ET.ParseError as error:
        raise DataError(f"{path}: expected XML, got {error}") from None
    height, width = (
        int(_number(path, side, root.findtext(f"size/{side}") or "0"))
        for side in ("height", "width")
    )
    return (height, width), [_read_object(path, node) for node in root.iter("object")]


def _read_object(path: Path, node: ET.Element) -> _Object:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{path}: expected a <name> in every <object>, got none")
    x_min, y_min, x_max, y_max = (
        _number(path, tag, node.findtext(f"bndbox/{tag}"), f"{name}: ")
        for tag in ("xmin", "ymin", "xmax", "ymax")
    )
    difficult = (node.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (x_min - 1, y_min - 1, x_max, y_max), difficult)


def _number(path: Path, tag: str, text: str | None, where: str = "") -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}: {where}expected a number in <{tag}>, got {text!r}")
    return value
