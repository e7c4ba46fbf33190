"""JSON files read with types: a field of another type is an error that names it."""

import codecs
from pathlib import Path
from typing import TypeVar

import msgspec

from mbv2det.errors import DataError

Record = TypeVar("Record")

_MAX_BYTES = 200_000_000  # a LabelMe file may contain its image


def read_json(path: Path, record: type[Record], max_bytes: int | None = _MAX_BYTES) -> Record:
    """Reads a JSON file as a record; fields that it does not declare are skipped.

    Args:
        path: Path of the file.
        record: Type of its content.
        max_bytes: Size of the largest file that is read; None for any.

    Raises:
        DataError: If the file is missing, no JSON, or has a field of a wrong type.
    """
    try:
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise DataError(f"{path}: expected JSON of at most {max_bytes} bytes, got more")
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            content = content.decode("utf-16").encode()
        return msgspec.json.decode(content, type=record)
    except OSError as error:
        raise DataError(f"{path}: expected a JSON file, cannot be read ({error})") from None
    except RecursionError:
        raise DataError(f"{path}: expected JSON, got lists within lists") from None
    except msgspec.ValidationError as error:
        fault, _, place = str(error).partition(" - at `$.")
        where = f"{place.rstrip('`')}: " if place else ""
        raise DataError(f"{path}: {where}{fault[0].lower()}{fault[1:]}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DataError(f"{path}: expected JSON, got {error}") from None
