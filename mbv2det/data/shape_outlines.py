"""The shapes of annotation tools as outlines: rectangles, ellipses, masks, groups of shapes."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool

from mbv2det.data.annotated_image import AnnotatedObject, Box
from mbv2det.errors import DataError

_CORNERS_OF_ELLIPSE = 72


def rectangle(box: Box, degrees: float = 0.0) -> list[float]:
    """Returns an xyxy box as a polygon [x, y, ...], turned clockwise around its centre."""
    x_min, y_min, x_max, y_max = box
    corners = ((x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max))
    return _turned(corners, ((x_min + x_max) / 2, (y_min + y_max) / 2), degrees)


def ellipse(
    center: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0
) -> list[float]:
    """Returns an ellipse as a polygon of 72 corners.

    Args:
        center: (x, y) in pixels.
        radii: Radii along x and y in pixels.
        degrees: Clockwise turn around the centre.
    """
    angles = [2 * math.pi * k / _CORNERS_OF_ELLIPSE for k in range(_CORNERS_OF_ELLIPSE)]
    corners = [
        (center[0] + radii[0] * math.cos(a), center[1] + radii[1] * math.sin(a)) for a in angles
    ]
    return _turned(corners, center, degrees)


def _turned(
    corners: Sequence[tuple[float, float]], center: tuple[float, float], degrees: float
) -> list[float]:
    if not degrees:
        return [value for corner in corners for value in corner]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = []
    for x, y in corners:
        dx, dy = x - center[0], y - center[1]
        turned += [center[0] + dx * cos - dy * sin, center[1] + dx * sin + dy * cos]
    return turned


def pasted_mask(
    where: str,
    name: str,
    pixels: Bool[np.ndarray, "h w"],
    corner: tuple[int, int],
    size: tuple[int, int],
) -> AnnotatedObject:
    """Returns the object of a small mask within an image.

    Args:
        where: File and record, for messages.
        name: Name of its class.
        pixels: True inside of the object.
        corner: (row, column) of the first pixel in the image.
        size: (height, width) of the image.

    Raises:
        DataError: If the mask has no pixels, or does not lie in the image.
    """
    (top, left), (height, width) = corner, size
    bottom, right = top + pixels.shape[0], left + pixels.shape[1]
    if not (top >= 0 and left >= 0 and bottom <= height and right <= width):
        raise DataError(
            f"{where}: expected a mask inside of the image of {height}x{width} pixels, got rows "
            f"{top} to {bottom} and columns {left} to {right}"
        )
    if not pixels.any():
        raise DataError(f"{where}: expected a mask with pixels, got an empty one")
    full = np.zeros(size, bool)
    full[top:bottom, left:right] = pixels
    rows, columns = np.flatnonzero(full.any(axis=1)), np.flatnonzero(full.any(axis=0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return AnnotatedObject(name, box, run_lengths(full))


def run_lengths(mask: Bool[np.ndarray, "H W"]) -> dict[str, list[int]]:
    """Returns a mask as COCO's uncompressed run lengths: column by column, zeros first."""
    flat = mask.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=False))
    return {
        "size": list(mask.shape),
        "counts": np.diff(starts, prepend=0, append=flat.size).tolist(),
    }


def merged(
    objects: Sequence[AnnotatedObject], groups: Sequence[Hashable | None]
) -> list[AnnotatedObject]:
    """Returns objects with the polygons of one class and group as one object.

    Args:
        objects: Objects of one image.
        groups: Group of each object; None for an object of its own.
    """
    parts: dict[Hashable, list[AnnotatedObject]] = defaultdict(list)
    for index, (o, group) in enumerate(zip(objects, groups, strict=True)):
        alone = group is None or not isinstance(o.outline, list)
        parts[("alone", index) if alone else (o.name, group)].append(o)
    return [_union(same) for same in parts.values()]


def _union(objects: Sequence[AnnotatedObject]) -> AnnotatedObject:
    """Returns objects with polygons as one."""
    if len(objects) == 1:
        return objects[0]
    outlines = [o.outline for o in objects if isinstance(o.outline, list)]
    polygons = [polygon for outline in outlines for polygon in outline]
    return AnnotatedObject.of_polygons(objects[0].name, polygons)
