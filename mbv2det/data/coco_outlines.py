"""The outlines of COCO's instances: polygons or run lengths, checked and encoded."""

import math
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Int64

from mbv2det.errors import DataError

_TRIANGLE = 6  # numbers in the smallest polygon
_MAX_COORDINATE = 1e5  # pixels


def encode_outline(path: Path, record: dict[str, Any], size: Int64[np.ndarray, "2"]) -> bytes:
    """Encodes the outline of an instance as COCO's compressed run lengths.

    Args:
        path: Annotation file, for messages.
        record: Annotation of the instance.
        size: (height, width) of the image.

    Returns:
        The code; empty for an instance without an outline.

    Raises:
        DataError: If the outline is neither polygons nor run lengths of a mask of this size.
    """
    outline = record.get("segmentation")
    if not outline:
        return b""
    height, width = (int(side) for side in size)
    if isinstance(outline, list) and all(map(_is_polygon, outline)):
        polygons = [polygon for polygon in outline if len(polygon) >= _TRIANGLE]
        codes = rle.frPyObjects(polygons, height, width) if polygons else []
        return bytes(rle.merge(codes)["counts"]) if codes else b""
    if isinstance(outline, dict) and outline.get("size") == [height, width]:
        counts = outline.get("counts")
        runs = _decode_run_lengths(counts) if isinstance(counts, str) else counts
        if _are_run_lengths(runs, height * width):
            return bytes(rle.frPyObjects(outline | {"counts": runs}, height, width)["counts"])
    raise DataError(
        f"{path}: annotation {record.get('id')}: expected segmentation to be polygons "
        f"[[x, y, x, y, ...], ...] or run lengths of {height}x{width} pixels (height x width), "
        f"got {reprlib.repr(outline)}"
    )


def _is_polygon(value: Any) -> bool:
    """Checks for pairs of moderate numbers: with huge ones, the rasteriser would not return."""
    return (
        isinstance(value, list)
        and len(value) % 2 == 0
        and all(is_number(number) and abs(number) < _MAX_COORDINATE for number in value)
    )


def _are_run_lengths(runs: Any, pixels: int) -> bool:
    """Checks for run lengths of a mask of this number of pixels."""
    return (
        isinstance(runs, list)
        and all(isinstance(run, int) and run >= 0 for run in runs)
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
        if not digit & 32:
            signed = value - (1 << shift) if digit & 16 else value
            runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def is_number(value: Any) -> bool:
    """Returns True for a finite number, False for any other JSON value."""
    return isinstance(value, int | float) and math.isfinite(value)
