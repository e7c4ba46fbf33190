"""Faults of boxes: pure functions on the objects of a split."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64

from mbv2det.checks.finding import (
    CORNERS,
    DUPLICATED,
    FRACTIONS,
    INVERTED,
    OUTSIDE,
    REACHING_OUT,
    ZERO_SIZE,
    Finding,
    Kind,
)
from mbv2det.data.annotations import Annotations
from mbv2det.data.objects import Objects, has_area

_TOLERANCE = 1.0  # pixels by which rounding may move a side
_MOST = 0.5  # share of the boxes from which a pattern is no accident
_NEARLY_ALL = 0.99
_ENOUGH = 4  # boxes below which a pattern may be an accident


def check_boxes(split: Annotations, name: str) -> Iterator[Finding]:
    """Finds the faults of the boxes of a split.

    Boxes are compared with their image where its size is known.

    Args:
        split: Split with objects.
        name: Name of the split.
    """
    objects = split.objects
    assert objects is not None
    fractions = in_first_pixel(objects.boxes)
    yield from _fractions(split, name, fractions)
    if looks_like_corners(split):
        count = len(objects)
        message = (
            f"most of the {count} boxes reach out of their image, and none would if its last two "
            "numbers were a corner"
        )
        yield Finding(CORNERS, name, message, split.name)
        return
    for kind, rows in box_faults(split).items():
        for row in np.flatnonzero(rows & ~fractions):
            yield _finding(kind, split, name, int(row))


def box_faults(split: Annotations) -> dict[Kind, Bool[np.ndarray, " N"]]:
    """Returns which boxes have a fault of each kind; a box has at most one, but for duplicates."""
    objects = split.objects
    assert objects is not None
    boxes, sizes = objects.boxes, split.sizes[objects.image].astype(np.float64)
    known = (sizes > 0).all(axis=1)
    limits = np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1)
    clipped = np.clip(boxes, 0, limits)
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    empty = ~has_area(boxes) & ~inverted
    outside = ~has_area(clipped) & known & ~empty & ~inverted
    reaching = (np.abs(clipped - boxes) > _TOLERANCE).any(axis=1) & known
    return {
        INVERTED: inverted,
        ZERO_SIZE: empty,
        OUTSIDE: outside,
        REACHING_OUT: reaching & ~outside & ~empty & ~inverted,
        DUPLICATED: duplicated(objects),
    }


def duplicated(objects: Objects) -> Bool[np.ndarray, " N"]:
    """Marks the boxes that an earlier object of the same image and class has too."""
    keys = np.column_stack([objects.image, objects.labels, objects.boxes])
    _, first = np.unique(keys, axis=0, return_index=True)
    again = np.ones(len(objects), np.bool_)
    again[first] = False
    return again


def in_first_pixel(boxes: Float64[np.ndarray, "N 4"]) -> Bool[np.ndarray, " N"]:
    """Marks the boxes with an area that lie within the first pixel: their numbers are fractions.

    VOC's boxes count from 1, so that their first corner may be at -1 after reading.
    """
    inside = (boxes >= -_TOLERANCE).all(axis=1) & (boxes <= 1 + 1e-6).all(axis=1)
    return inside & has_area(boxes)


def are_fractions(split: Annotations) -> bool:
    """Returns True if most boxes of a split have fractions as numbers."""
    assert split.objects is not None
    marks = in_first_pixel(split.objects.boxes)
    return bool(len(marks)) and float(marks.mean()) >= _MOST


def looks_like_corners(split: Annotations) -> bool:
    """Returns True if the last two numbers of COCO's boxes seem to be a corner.

    Half of the boxes reach out of the image, and nearly all lie in it if their width and height
    are read as the second corner.
    """
    objects = split.objects
    assert objects is not None
    first, last = objects.boxes[:, :2], objects.boxes[:, 2:]
    corner = last - first  # what the file has as width and height
    limits = split.sizes[objects.image][:, ::-1].astype(np.float64)
    known = (limits > 0).all(axis=1)
    if known.sum() < _ENOUGH:
        return False
    reaching = (last > limits + _TOLERANCE).any(axis=1)
    as_corner = (corner > first).all(axis=1) & (corner <= limits + _TOLERANCE).all(axis=1)
    return bool(reaching[known].mean() >= _MOST and as_corner[known].mean() >= _NEARLY_ALL)


def _fractions(split: Annotations, name: str, marks: Bool[np.ndarray, " N"]) -> Iterator[Finding]:
    """Yields one finding for each image with boxes in fractions."""
    assert split.objects is not None
    counts = np.bincount(split.objects.image[marks], minlength=len(split))
    for index in np.flatnonzero(counts):
        message = f"{counts[index]} boxes have no number above 1"
        yield Finding(FRACTIONS, name, message, str(split.path(int(index))), "", int(index))


def _finding(kind: Kind, split: Annotations, name: str, row: int) -> Finding:
    assert split.objects is not None
    index = int(split.objects.image[row])
    record = describe_object(split, row)
    size = split.size(index)
    within = "" if size is None else f" in an image of {size[0]}x{size[1]} (height x width)"
    return Finding(kind, name, f"{record}{within}", str(split.path(index)), record, index)


def describe_object(split: Annotations, row: int) -> str:
    """Returns the number of an object in its image, its class and its corners."""
    objects = split.objects
    assert objects is not None
    number = row - int(objects.starts[objects.image[row]]) + 1
    shown = ", ".join(f"{value:g}" for value in objects.boxes[row])
    return f"object {number} ({objects.label_map.names[objects.labels[row]]}: {shown})"
