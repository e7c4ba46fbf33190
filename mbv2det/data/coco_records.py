"""The records of COCO's JSON, read with types: a field of another type is an error that names it.

msgspec reads them ten times as fast as Python's json, and into a fourth of the memory: fields that
are not declared here are skipped, and outlines stay text until they are packed. A small file cannot
become gigabytes of Python objects.
"""

import codecs
import re
from pathlib import Path

import msgspec

from mbv2det.errors import DataError

Scalar = int | float | str | bool | None
"""A JSON value that is no list and no object; what it means is decided later."""

_NULL = msgspec.Raw(b"null")


class ImageRecord(msgspec.Struct, gc=False):
    """An entry of `images`."""

    id: Scalar
    file_name: str
    height: Scalar = None
    width: Scalar = None


class CategoryRecord(msgspec.Struct, gc=False):
    """An entry of `categories`."""

    id: Scalar
    name: int | float | str


class ObjectRecord(msgspec.Struct, gc=False):
    """An entry of `annotations`; box and outline are JSON."""

    image_id: Scalar
    category_id: Scalar
    id: msgspec.Raw = _NULL
    area: Scalar = None
    iscrowd: Scalar = None
    bbox: msgspec.Raw = _NULL
    segmentation: msgspec.Raw = _NULL

    @property
    def name(self) -> str:
        """Name of the record in messages."""
        return f"annotation {bytes(self.id)[:40].decode(errors='replace')}"


class CocoRecords(msgspec.Struct):
    """The file."""

    images: list[ImageRecord]
    annotations: list[ObjectRecord]
    categories: list[CategoryRecord]


_DECODER = msgspec.json.Decoder(CocoRecords)


def decode_records(path: Path, content: bytes) -> CocoRecords:
    """Reads the content of an annotation file.

    Args:
        path: Its path, for messages.
        content: Its bytes.

    Raises:
        DataError: If it is no JSON, or if a key is missing or of a wrong type.
    """
    content = _as_utf8(path, content)
    try:
        try:
            return _DECODER.decode(content)
        except msgspec.DecodeError:
            standard = _without_nan(content)
            if standard is content:
                raise
            return _DECODER.decode(standard)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {_explain(str(error))}") from None
    except RecursionError:
        raise DataError(f"{path}: expected COCO's JSON, got lists within lists") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected JSON, got {error}") from None


def _as_utf8(path: Path, content: bytes) -> bytes:
    """Returns the content in UTF-8, without the mark that some editors put in front."""
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content
    try:
        return content.decode("utf-16").encode()
    except UnicodeError as error:
        raise DataError(f"{path}: expected JSON in UTF-8 or UTF-16, got {error}") from None


_STRING_OR_NAN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b', re.DOTALL)


def _without_nan(content: bytes) -> bytes:
    """Returns JSON with null for NaN and Infinity, which Python's json writes and JSON lacks."""
    if b"NaN" not in content and b"Infinity" not in content:
        return content
    return _STRING_OR_NAN.sub(lambda m: m[0] if m[0].startswith(b'"') else b"null", content)


_TYPES = {"int": "number", "float": "number", "str": "text", "bool": "true or false"}


def _explain(message: str) -> str:
    """Returns a message of msgspec as `where: expected ..., got ...`."""
    fault, _, place = message.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", fault)
    if missing and place:
        return f"{place}: expected the key {missing[1]!r}, found none"
    if missing and missing[1] == "annotations":
        return (
            "expected COCO's keys (images, annotations, categories), got no list called "
            "'annotations': a file of images without annotation can only be predicted: "
            "mbv2det predict --weights FILE FOLDER"
        )
    if missing or not place or place in ("images", "annotations", "categories"):
        key = missing[1] if missing else place
        missed = f"no list called {key!r}" if key else fault
        return f"expected COCO's keys (images, annotations, categories), got {missed}"
    wrong = re.fullmatch(r"Expected `(.*)`, got `(.*)`", fault)
    if not wrong:
        return f"{place}: {fault[0].lower()}{fault[1:]}"
    expected = dict.fromkeys(_TYPES.get(name, name) for name in wrong[1].split(" | "))
    return f"{place}: expected {' or '.join(expected)}, got {_TYPES.get(wrong[2], wrong[2])}"
