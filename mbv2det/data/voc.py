"""Pascal VOC's XML annotation."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from mbv2det.data.annotations import Annotations, Objects, Report
from mbv2det.data.files import (
    existing_folder,
    files_by_stem,
    read_list,
    without_column,
    without_suffix,
)
from mbv2det.data.images import SUFFIXES
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

_MANY_FILES = 2000


@dataclass(frozen=True)
class VOCSource:
    """Where one list of images lies.

    Attributes:
        images: Folder of the image files.
        annotations: Folder of XML files of the same stems.
        list_file: Stems, one a line, or None for every XML file.
    """

    images: Path
    annotations: Path
    list_file: Path | None

    def stems(self) -> list[str]:
        """Of the images, in order.

        Raises:
            DataError: If the list is missing.
        """
        existing_folder(self.annotations)
        if self.list_file is None:
            return sorted(p.stem for p in self.annotations.glob("*.xml"))
        names = [without_column(line) for line in read_list(self.list_file)]
        return [Path(without_suffix(name, (*SUFFIXES, ".xml"))).name for name in names]


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def read_voc(sources: Sequence[VOCSource]) -> Annotations:
    """Reads one or several lists (07+12) as one split; classes are the names found, sorted.

    VOC counts pixels from 1 and includes the last: a box is (xmin - 1, ymin - 1, xmax, ymax) here.
    Objects with xmin == xmax or ymin == ymax are degenerate, and dropped with a count.

    Raises:
        DataError: For a missing file or an XML that lacks what a box needs.
    """
    report = Report()
    files, ids, sizes, counts = [], [], [], []
    objects: list[_Object] = []
    for source in sources:
        stems = source.stems()
        image_files = files_by_stem(source.images, SUFFIXES)
        quiet = len(stems) < _MANY_FILES
        for stem in track(stems, f"Reading {source.annotations}", disable=quiet):
            path = source.annotations / f"{stem}.xml"
            if stem not in image_files:
                raise DataError(f"{source.images / stem}.*: {path} has no image file")
            size, found = _read_xml(path)
            usable = [o for o in found if o.box[2] > o.box[0] + 1 and o.box[3] > o.box[1] + 1]
            for _ in range(len(found) - len(usable)):
                report.add("degenerate boxes (zero width or height) dropped", path.name)
            files.append(str(source.images / image_files[stem]))
            ids.append(stem)
            sizes.append(size)
            counts.append(len(usable))
            objects.extend(usable)
    name = ", ".join(str(s.list_file or s.annotations) for s in sources)
    if not objects:
        raise DataError(f"{name}: expected annotated objects, got none in {len(files)} images")
    names = sorted({o.name for o in objects})
    labels = LabelMap(tuple(names), tuple(range(1, len(names) + 1)))
    boxes = np.array([o.box for o in objects], np.float64)
    annotations = Annotations(
        name=name,
        image_ids=np.array(ids),
        files=np.array(files),
        sizes=np.array(sizes, np.int64),
        objects=Objects(
            labels=labels,
            annotated=np.ones(len(files), bool),
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=boxes,
            classes=np.array([labels.label_of_name[o.name] for o in objects], np.int64),
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            crowd=np.zeros(len(objects), bool),
            difficult=np.array([o.difficult for o in objects], bool),
        ),
        report=report,
    )
    annotations.report_boxes()
    return annotations


def _read_xml(path: Path) -> tuple[tuple[int, int], list[_Object]]:
    """(height, width), zeros where not stated, and the objects as they stand."""
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
