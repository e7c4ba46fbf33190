"""What an XML or JSON file annotates, as its first lines or its keys say."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from mbv2det.data.annotations import evenly_spaced
from mbv2det.data.json_files import read_json
from mbv2det.errors import DataError

Kind = Literal["voc", "cvat", "coco", "labelme"]

_HEAD = 8192  # bytes of a file in which its root element stands
_ROOT_ELEMENT = re.compile(rb"<\s*(annotations?)\b")
_MOST_READ = 30  # JSON files of a folder that are read


def kind_of_xml(path: Path) -> Kind | None:
    """Returns voc for a file of one image, cvat for one of all images, None for another file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).replace(b"\0", b"")  # of UTF-16
    except OSError:
        return None
    found = _ROOT_ELEMENT.search(head)
    if found is None:
        return None
    return "cvat" if found[1] == b"annotations" else "voc"


class _Keys(msgspec.Struct, gc=False):
    """The keys by which JSON files are told apart, whatever their values; empty where absent."""

    images: msgspec.Raw = msgspec.Raw()
    annotations: msgspec.Raw = msgspec.Raw()
    categories: msgspec.Raw = msgspec.Raw()
    shapes: msgspec.Raw = msgspec.Raw()


def kind_of_json(path: Path) -> Kind | None:
    """Returns coco for a file of all images, labelme for one of one image, else None."""
    try:
        keys = read_json(path, _Keys, max_bytes=None)
    except DataError:
        return None
    if all(map(bytes, (keys.images, keys.annotations, keys.categories))):
        return "coco"
    return "labelme" if bytes(keys.shapes) else None


def sampled(files: list[str]) -> list[str]:
    """Returns the files of a folder that stand for all of them."""
    return [files[index] for index in evenly_spaced(len(files), _MOST_READ)] if files else []
