"""XML files in any encoding, without entities."""

import codecs
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbv2det.errors import DataError

_MAX_BYTES = 10_000_000  # parsed, XML takes up to 50 times its size
_BYTES_PER_MARK = 20  # of annotations; a file of tags alone would take minutes and gigabytes
_MAX_DEPTH = 100  # elements within each other
_PART = 1 << 20  # bytes or characters that are parsed at a time
_TAIL = 4096  # bytes or characters at the end, in which the last tag ends
_MAX_NUMBER = 1e9  # no annotation of an image has larger ones
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")


def read_xml(path: Path, max_bytes: int = _MAX_BYTES) -> ET.Element:
    """Returns the root element of an XML file.

    The encoding is the declared one, or that of the byte order mark. Document types are refused:
    annotations need none, and their entities can expand to any size.

    Args:
        path: Path of the file.
        max_bytes: Size of the largest file that is read.

    Raises:
        DataError: If the file is missing, no XML, or of an unknown encoding.
    """
    text = _checked_text(path, max_bytes)
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected XML, got {error}") from None


def read_children(path: Path, max_bytes: int = _MAX_BYTES) -> Iterator[ET.Element]:
    """Yields the children of the root element of an XML file, in their order.

    Only one child is in memory at a time: its content is gone when the next is asked for.

    Args:
        path: Path of the file.
        max_bytes: Size of the largest file that is read.

    Raises:
        DataError: As `read_xml`, or if elements are nested too deeply.
    """
    text = _checked_text(path, max_bytes)
    # Any: read_events is typed for the events of all kinds.
    parser: Any = ET.XMLPullParser(("start", "end"))
    open_elements: list[ET.Element] = []
    try:
        for start in range(0, len(text), _PART):
            parser.feed(text[start : start + _PART])
            for event, element in parser.read_events():
                if event == "start":
                    open_elements.append(element)
                    _check_depth(path, len(open_elements))
                    continue
                open_elements.pop()
                if len(open_elements) == 1:
                    yield element
                    open_elements[0].clear()
        parser.close()
    except DataError:
        raise
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{path}: expected XML, got {error}") from None


def _check_depth(path: Path, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise DataError(f"{path}: expected at most {_MAX_DEPTH} elements within each other")


def _checked_text(path: Path, max_bytes: int) -> str | bytes:
    """Returns what the parser is given: XML without a document type, complete at first sight."""
    content = _content(path, max_bytes)
    max_marks = max_bytes // _BYTES_PER_MARK
    if content.count(b"<") + content.count(b"=") > max_marks:
        raise DataError(
            f"{path}: expected XML of at most {max_marks} tags and attributes, got more"
        )
    text = _decode(path, content)
    kind, mark = (str, "<!DOCTYPE") if isinstance(text, str) else (bytes, b"<!DOCTYPE")
    assert isinstance(text, kind)
    if mark in text:  # type: ignore[operator]
        raise DataError(f"{path}: expected XML without a document type (<!DOCTYPE>), got one")
    # A file that is cut off is refused before the parser has read it all.
    tail = text[-_TAIL:].strip()
    tail = tail if isinstance(tail, str) else tail.decode("latin-1")
    if not tail.endswith(">") or (len(text) > _TAIL and "</" not in tail):
        raise DataError(f"{path}: expected XML, got an end that is no end tag: is it cut off?")
    return text


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= max_bytes else b""
    except FileNotFoundError:
        raise DataError(f"{path}: expected an annotation, found none") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected an annotation, cannot be read ({error})") from None
    if size > max_bytes:
        raise DataError(f"{path}: expected XML of at most {max_bytes} bytes, got {size}")
    return content


def _decode(path: Path, content: bytes) -> str | bytes:
    """Returns XML as text where the parser does not know its encoding, such as GBK."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    else:
        declared = _DECLARED.match(content.removeprefix(codecs.BOM_UTF8))
        encoding = declared[1].decode("ascii").lower() if declared else "utf-8"
    try:
        if encoding in _UTF8:
            content.decode()  # the parser's message would not name the encoding
            return content
        # The two older names stand for parts of the last one, which files often exceed.
        encoding = "gb18030" if encoding in ("gb2312", "gbk") else encoding
        return _DECLARATION.sub("", content.decode(encoding))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: expected XML in {encoding}, got other bytes in line {line}; save it as "
            "UTF-8, or declare its encoding in the first line"
        ) from None
    except (LookupError, ValueError):
        raise DataError(f"{path}: expected XML in UTF-8, got the encoding {encoding!r}") from None


def finite_number(text: str | None, expected: str) -> float:
    """Returns the number that a text is.

    Args:
        text: The text.
        expected: Place and meaning of the number, for messages, such as `a.xml: expected a width`.

    Raises:
        DataError: If the text is no finite number.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < _MAX_NUMBER:  # nor NaN
        raise DataError(f"{expected}, got {text!r:.80}")
    return value
