"""Anchors, which the SSD paper calls default boxes (Liu et al. 2016, arXiv:1512.02325, sec. 2.2).

- They are derived from the feature grids that the network really produced: cells of size H/h by
  W/w, centres in the middle of each, whatever the input size.
- Scales are fractions of the image's shorter side, so aspect ratios hold on non-square inputs
  (torchvision stretches them along with the image).
- The lowest level has three boxes a cell, the others six, as in TensorFlow's
  `multiple_grid_anchor_generator.py` with `reduce_boxes_in_lowest_layer`.
- Nothing is clipped to the image.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AnchorSpec:
    """Shapes of the anchors of every level.

    Attributes:
        min_scale: Of the lowest level, as a fraction of the image's shorter side.
        max_scale: Of the highest level; those between are evenly spaced.
        aspect_ratios: Width over height, for every level but the lowest.
        reduce_lowest: Gives the lowest level three boxes a cell only (half its scale at ratio 1,
            its scale at ratios 2 and 1/2), which keeps small objects affordable.
    """

    min_scale: float = 0.2
    max_scale: float = 0.95
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5, 3.0, 1 / 3)
    reduce_lowest: bool = True

    def shapes(self, num_levels: int) -> list[list[tuple[float, float]]]:
        """(scale, aspect ratio) of the anchors of each level's cells, in the tensor's order."""
        scales = [float(s) for s in np.linspace(self.min_scale, self.max_scale, num_levels)]
        levels = []
        for k, (scale, next_scale) in enumerate(zip(scales, [*scales[1:], 1.0], strict=True)):
            if k == 0 and self.reduce_lowest:
                levels.append([(scale / 2, 1.0), (scale, 2.0), (scale, 0.5)])
            else:
                between = ((scale * next_scale) ** 0.5, 1.0)
                levels.append([*((scale, ratio) for ratio in self.aspect_ratios), between])
        return levels

    def per_cell(self, num_levels: int) -> list[int]:
        """Anchors of one cell, by level."""
        return [len(level) for level in self.shapes(num_levels)]


def make_anchors(
    spec: AnchorSpec, grids: tuple[tuple[int, int], ...], image_size: tuple[int, int]
) -> Float[Tensor, "A 4"]:
    """Every anchor of an image; within a level the cell's box varies fastest, then x, then y.

    Args:
        spec: Their shapes.
        grids: (h, w) of each level's feature map.
        image_size: (H, W) of the network input.

    Returns:
        xyxy in pixels of the network input, on the CPU. Not to be written to.
    """
    return torch.from_numpy(_anchor_boxes(spec, grids, image_size))


# Cached as an array: a tensor made while the network is exported is a fake one, and would stay.
@lru_cache(maxsize=64)
def _anchor_boxes(
    spec: AnchorSpec, grids: tuple[tuple[int, int], ...], image_size: tuple[int, int]
) -> Float[np.ndarray, "A 4"]:
    height, width = image_size
    levels = []
    for (rows, columns), shapes in zip(grids, spec.shapes(len(grids)), strict=True):
        sides = np.array([[s * a**0.5, s / a**0.5] for s, a in shapes]) * min(height, width)
        y, x = np.meshgrid(
            (np.arange(rows) + 0.5) * height / rows,
            (np.arange(columns) + 0.5) * width / columns,
            indexing="ij",
        )
        centres = np.stack([x, y], axis=-1)[:, :, None]
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
        levels.append(boxes.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)
