"""The outlines of COCO's instances: polygons or run lengths, checked and packed."""

import reprlib
from array import array
from bisect import bisect
from typing import Any

import msgspec
import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Float64

from mbv2det.data.outlines import OutlineKind, Outlines

_TRIANGLE = 6  # numbers in the smallest polygon
_MAX_COORDINATE = 1e5  # pixels; with huge ones, the rasteriser would not return
_MAX_SHIFT = 60  # bits of one run length
_MAX_TEXT = 16_000_000  # bytes of one outline: as Python objects they take twenty times the memory

_POLYGONS = msgspec.json.Decoder(list[list[float]])


class OutlineError(ValueError):
    """An outline that is neither polygons nor run lengths; the message says what it is.

    Args:
        message: What was found instead.
        row: Number of the outline among those that were packed, if it is not the last one.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class OutlinePacker:
    """Packs outlines one by one, without keeping any of their Python objects."""

    def __init__(self) -> None:
        self._kinds = array("b")
        self._numbers = array("d")
        self._polygon_starts = array("q", [0])
        self._first_polygons = array("q", [0])
        self._codes = bytearray()
        self._code_starts = array("q", [0])

    def __len__(self) -> int:
        return len(self._kinds)

    def add(self, text: bytes | memoryview, size: tuple[int, int]) -> None:
        """Adds the outline of the next object.

        Args:
            text: `segmentation` of its annotation, as JSON.
            size: (height, width) of its image; zeros where that is not annotated.

        Raises:
            OutlineError: If the outline is neither polygons nor run lengths of a mask of this size.
        """
        kind = self._add_polygons(text) if len(text) < _MAX_TEXT else None
        if kind is None:
            kind = self._add_run_lengths(_decode(text), size)
        self._kinds.append(kind)
        self._first_polygons.append(len(self._polygon_starts) - 1)
        self._code_starts.append(len(self._codes))

    def finish(self) -> Outlines:
        """Returns the outlines that were added.

        Raises:
            OutlineError: If a polygon is too far from any image; its `row` is that of the object.
        """
        numbers = np.frombuffer(self._numbers, np.float64)
        self._check_range(numbers)
        return Outlines(
            np.array(self._kinds, np.int8),
            numbers,
            np.array(self._polygon_starts, np.int64),
            np.array(self._first_polygons, np.int64),
            np.frombuffer(bytes(self._codes), np.uint8),
            np.array(self._code_starts, np.int64),
        )

    def _check_range(self, numbers: Float64[np.ndarray, " n"]) -> None:
        """Refuses huge coordinates, of all polygons at once: one by one it would take seconds."""
        limit = _MAX_COORDINATE
        if not len(numbers) or (numbers.max() < limit and numbers.min() > -limit):
            return
        position = int((np.abs(numbers) >= limit).argmax())
        polygon = bisect(self._polygon_starts, position) - 1
        row = bisect(self._first_polygons, polygon) - 1
        raise OutlineError(f"the coordinate {numbers[position]:g}", row)

    def _add_polygons(self, text: bytes | memoryview) -> OutlineKind | None:
        """Adds an outline of polygons; returns None, and adds nothing, if it has another form."""
        try:
            polygons = _POLYGONS.decode(text)
        except (ValueError, RecursionError):
            return None
        kind = OutlineKind.ABSENT
        for polygon in polygons:
            if len(polygon) % 2:
                return None
            if len(polygon) >= _TRIANGLE:
                kind = OutlineKind.POLYGONS
            elif polygon and kind == OutlineKind.ABSENT:
                kind = OutlineKind.EMPTY
        for polygon in polygons:
            if len(polygon) >= _TRIANGLE:
                self._numbers.fromlist(polygon)
                self._polygon_starts.append(len(self._numbers))
        return kind

    def _add_run_lengths(self, outline: Any, size: tuple[int, int]) -> OutlineKind:
        if not outline:
            return OutlineKind.ABSENT
        height, width = size
        if isinstance(outline, dict) and outline.get("size") == [height, width]:
            counts = outline.get("counts")
            runs = _decode_run_lengths(counts) if isinstance(counts, str) else counts
            if _are_run_lengths(runs, height * width):
                self._codes += rle.frPyObjects(outline | {"counts": runs}, height, width)["counts"]
                return OutlineKind.RUN_LENGTHS
        raise OutlineError(reprlib.repr(outline))


def size_of_run_lengths(text: bytes | memoryview) -> tuple[int, int] | None:
    """Returns the (height, width) that an outline of run lengths names, None if it names none."""
    if bytes(text[:1]) != b"{":
        return None
    size = _decode(text).get("size")
    valid = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    return (size[0], size[1]) if valid and min(size) > 0 else None


def _decode(text: bytes | memoryview) -> Any:
    if len(text) >= _MAX_TEXT:
        raise OutlineError(f"{len(text)} bytes of text; at most {_MAX_TEXT} are read")
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise OutlineError(str(error)) from None


def _are_run_lengths(runs: Any, pixels: int) -> bool:
    """Checks for run lengths of a mask of this number of pixels."""
    return (
        isinstance(runs, list)
        and all(type(run) is int and run >= 0 for run in runs)
        and sum(runs) == pixels
    )


def _decode_run_lengths(code: str) -> list[int]:
    """Decodes COCO's compressed run lengths, without checking them: any text gives some numbers.

    Numbers are written in base 32, least significant digit first. From the fourth number on, they
    are differences from the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if shift > _MAX_SHIFT:  # a number without end takes quadratic time
            return []
        if not digit & 32:
            signed = value - (1 << shift) if digit & 16 else value
            runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
