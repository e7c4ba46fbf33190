"""Points: the centres of the cells of all levels, each of which predicts one box.

They take the place of anchors (FCOS, Tian et al. 2019, arXiv:1904.01355, section 3.1). As anchors,
they are derived from the actual sizes of the feature maps: an h x w feature map divides an H x W
input into cells of H/h by W/w pixels.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_BOXES_AT_ONCE = 1000  # with 2,000 points, intermediate results have 16 MB


def make_points(
    grids: tuple[tuple[int, int], ...], image_size: tuple[int, int]
) -> tuple[Float[Tensor, "P 4"], Int64[Tensor, " P"]]:
    """Returns the points of all levels, in the order of level, row, column.

    Args:
        grids: Size of each level's feature map, (h, w), the finest first.
        image_size: Size of the network input, (H, W) in pixels.

    Returns:
        Centre x, y and width and height of each point's cell in pixels of the network input, and
        the level of each point; on the CPU. The memory is shared with later calls: do not write to
        it.
    """
    points, levels = _points(grids, image_size)
    return torch.from_numpy(points), torch.from_numpy(levels)


def points_inside(
    boxes: Float[Tensor, "*batch N 4"], points: Float[Tensor, "P 4"], *, min_cells: float = 0.0
) -> Bool[Tensor, "*batch N P"]:
    """Returns which points lie in which boxes.

    Args:
        boxes: xyxy boxes in pixels of the network input.
        points: Points of `make_points`.
        min_cells: Smallest sides to which boxes are enlarged around their centre, in cells of the
            finest level. With 1 every box in the image contains a point, even one between them.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    smallest = min_cells * points[:, 2:].amin(dim=0)
    half = (boxes[..., 2:] - boxes[..., :2]).maximum(smallest) / 2
    # Axis by axis: a reduction over an axis of two is slow.
    x, y = (
        (points[:, axis] - centres[..., axis, None]).abs() <= half[..., axis, None]
        for axis in (0, 1)
    )
    return x & y


def describe_coverage(boxes: Float[np.ndarray, "N 4"], points: Float[Tensor, "P 4"]) -> str:
    """Returns a line with the share of objects that contain a point.

    A low share means that objects are smaller than the cells of the finest level.

    Args:
        boxes: xyxy boxes of the objects, in pixels of the network input.
        points: Points of `make_points`.
    """
    if not len(boxes):
        return "points: no objects to compare them with"
    parts = torch.from_numpy(boxes).split(_BOXES_AT_ONCE)
    covered = torch.cat([points_inside(part, points).any(dim=-1) for part in parts]).float().mean()
    return (
        f"points: {len(points)}; {covered:.1%} of {len(boxes)} objects contain one, the others "
        "train the nearest"
    )


# The cache holds arrays, not tensors: a tensor made during torch.export is a fake one and would
# stay in the cache.
@lru_cache(maxsize=64)
def _points(
    grids: tuple[tuple[int, int], ...], image_size: tuple[int, int]
) -> tuple[Float[np.ndarray, "P 4"], Int64[np.ndarray, " P"]]:
    height, width = image_size
    points, levels = [], []
    for level, (rows, columns) in enumerate(grids):
        cell = width / columns, height / rows
        y, x = np.meshgrid(
            (np.arange(rows) + 0.5) * cell[1], (np.arange(columns) + 0.5) * cell[0], indexing="ij"
        )
        sides = (np.full_like(x, side) for side in cell)
        points.append(np.stack([x, y, *sides], axis=-1).reshape(-1, 4))
        levels.append(np.full(rows * columns, level))
    return np.concatenate(points).astype(np.float32), np.concatenate(levels).astype(np.int64)
