"""Tables of the classes of masks: names, with colours or values if they have them."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mbv2det.data.file_lists import read_text
from mbv2det.data.mask_reading import Color
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND
from mbv2det.prepare.inventory import Inventory

_LABELME_IGNORE, _LABELME_BACKGROUND = "__ignore__", "_background_"


@dataclass(frozen=True)
class MaskClass:
    """A class in a table: its name, with the colour or the value of its pixels if it says so."""

    name: str
    color: Color | None = None
    value: int | None = None


@dataclass(frozen=True)
class ClassTable:
    """A file that names the classes of masks.

    Attributes:
        file: Its path, relative to the root of the data set.
        classes: The classes in its order.
    """

    file: str
    classes: Sequence[MaskClass]

    @property
    def has_colors(self) -> bool:
        """Whether it has colours of classes."""
        return any(c.color is not None for c in self.classes)


def find_class_table(inventory: Inventory) -> ClassTable | None:
    """Returns the table of the classes of masks; None if there is none."""
    for name, read in _READERS.items():
        for file in inventory.files:
            if PurePosixPath(file).name.lower() != name:
                continue
            try:
                classes = list(read(read_text(inventory.root / file).splitlines()))
            except (DataError, csv.Error, ValueError, KeyError):
                continue
            if classes:
                return ClassTable(file, classes)
    return None


def _labelmap(lines: Sequence[str]) -> Iterator[MaskClass]:
    """Reads CVAT's `name:red,green,blue::`."""
    for line in lines:
        match = re.match(r"\s*([^#:][^:]*):(\d+),(\d+),(\d+)", line)
        if match:
            red, green, blue = (int(match[i]) for i in (2, 3, 4))
            yield MaskClass(match[1].strip(), (red, green, blue))


def _color_table(lines: Sequence[str]) -> Iterator[MaskClass]:
    """Reads a table with the columns name, r, g, b."""
    for row in _rows(lines):
        yield MaskClass(row["name"], (int(row["r"]), int(row["g"]), int(row["b"])))


def _value_table(lines: Sequence[str]) -> Iterator[MaskClass]:
    """Reads Roboflow's table with the columns Pixel Value, Class."""
    for row in _rows(lines):
        yield MaskClass(row["class"], value=int(row["pixel value"]))


def _names(lines: Sequence[str]) -> Iterator[MaskClass]:
    """Reads one name a line; labelme writes __ignore__, of no value, and _background_ first."""
    names = [line.strip() for line in lines if line.strip()]
    for name in names[1:] if names[:1] == [_LABELME_IGNORE] else names:
        yield MaskClass(BACKGROUND if name == _LABELME_BACKGROUND else name)


def _rows(lines: Sequence[str]) -> Iterator[Mapping[str, str]]:
    for row in csv.DictReader(lines):
        yield {str(key).strip().lower(): str(value).strip() for key, value in row.items()}


_READERS: Mapping[str, Callable[[Sequence[str]], Iterator[MaskClass]]] = {
    "labelmap.txt": _labelmap,
    "class_dict.csv": _color_table,
    "_classes.csv": _value_table,
    "classes.txt": _names,
    "class_names.txt": _names,
    "labels.txt": _names,
    "codes.txt": _names,
}
