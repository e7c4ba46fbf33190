"""The outlines of the objects of one split, packed into flat arrays.

An outline is drawn when its mask is read: drawing all of COCO's before training would take minutes,
and as Python objects their numbers would take gigabytes.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Float64, Int8, Int64, UInt8

from mbv2det.data.spans import take_spans


class OutlineKind(IntEnum):
    """Form of an outline."""

    ABSENT = 0
    """The annotation has none."""
    EMPTY = 1
    """The annotation has one that encloses nothing, such as a box of four numbers."""
    POLYGONS = 2
    RUN_LENGTHS = 3


@dataclass(frozen=True)
class Outlines:
    """Outlines of N objects: polygons, or COCO's compressed run lengths.

    Attributes:
        kinds: `OutlineKind` of each object.
        numbers: Coordinates x, y, x, y, ... of all polygons in pixels, concatenated.
        polygon_starts: Index into `numbers` of each polygon, and their number at the end.
        first_polygons: Index into `polygon_starts` of the first polygon of each object, and the
            number of polygons at the end.
        codes: Compressed run lengths of all objects, concatenated.
        code_starts: Index into `codes` of each object, and their number at the end.
    """

    kinds: Int8[np.ndarray, " N"]
    numbers: Float64[np.ndarray, " numbers"]
    polygon_starts: Int64[np.ndarray, " bounds"]
    first_polygons: Int64[np.ndarray, " N+1"]
    codes: UInt8[np.ndarray, " bytes"]
    code_starts: Int64[np.ndarray, " N+1"]

    def __len__(self) -> int:
        return len(self.kinds)

    def at(self, rows: Int64[np.ndarray, " M"]) -> "Outlines":
        """Returns the outlines of some objects, in their order."""
        polygons, first_polygons = take_spans(self.first_polygons, rows)
        numbers, polygon_starts = take_spans(self.polygon_starts, polygons)
        codes, code_starts = take_spans(self.code_starts, rows)
        return Outlines(
            kinds=self.kinds[rows],
            numbers=self.numbers[numbers],
            polygon_starts=polygon_starts,
            first_polygons=first_polygons,
            codes=self.codes[codes],
            code_starts=code_starts,
        )

    def draw(self, row: int, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
        """Draws one object; an object without polygons and run lengths has no pixels.

        Args:
            row: Index of the object.
            size: (height, width) of its image.

        Returns:
            1 inside of the outline, 0 elsewhere.
        """
        height, width = size
        if self.kinds[row] == OutlineKind.RUN_LENGTHS:
            code = self.codes[self.code_starts[row] : self.code_starts[row + 1]].tobytes()
            return rle.decode({"size": [height, width], "counts": code})
        polygons = [polygon.tolist() for polygon in self.polygons(row)]
        if not polygons:
            return np.zeros(size, np.uint8)
        return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width)))

    def polygons(self, row: int) -> list[Float64[np.ndarray, " n"]]:
        """Returns the coordinates of the polygons of one object."""
        first, end = (int(self.first_polygons[i]) for i in (row, row + 1))
        starts = self.polygon_starts
        return [self.numbers[starts[i] : starts[i + 1]] for i in range(first, end)]

    def box(self, row: int, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """Returns the (x, y, width, height) of an outline in pixels; None if it has no pixels."""
        if self.kinds[row] == OutlineKind.RUN_LENGTHS:
            code = self.codes[self.code_starts[row] : self.code_starts[row + 1]].tobytes()
            x, y, width, height = rle.toBbox({"size": list(size), "counts": code}).tolist()
            return (x, y, width, height) if width and height else None
        polygons = self.polygons(row)
        if not polygons:
            return None
        points = np.concatenate(polygons).reshape(-1, 2)
        (x, y), (width, height) = points.min(axis=0).tolist(), np.ptp(points, axis=0).tolist()
        return x, y, width, height
