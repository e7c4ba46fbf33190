"""Anchors, which the SSD paper calls default boxes (Liu et al. 2016, arXiv:1512.02325, sec. 2.2).

- Anchors are derived from the actual sizes of the feature maps: an h x w feature map divides an H x
  W input into cells of H/h by W/w pixels, and anchors are centred in them.
- Scales are fractions of the input's shorter side, so that aspect ratios are also exact on
  non-square inputs (torchvision stretches the anchors along with the image).
- The lowest level has three anchors per cell, the others six, as in TensorFlow's
  `multiple_grid_anchor_generator.py` with `reduce_boxes_in_lowest_layer`.
- Anchors are not clipped to the image.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbv2det.geometry import pairwise_iou

_BOXES_AT_ONCE = 1000  # with 2,000 anchors, intermediate results of pairwise_iou have 16 MB


@dataclass(frozen=True)
class AnchorSpec:
    """Scales and aspect ratios of the anchors of every level (feature map).

    Attributes:
        min_scale: Scale of the lowest level, as a fraction of the input's shorter side.
        max_scale: Scale of the highest level; the levels between are evenly spaced.
        aspect_ratios: Width over height of the anchors, for every level except a reduced lowest
            one.
        reduce_lowest: Whether the lowest level, which has the most cells, has only three anchors
            per cell: half its scale at ratio 1, and its scale at ratios 2 and 1/2.
    """

    min_scale: float = 0.2
    max_scale: float = 0.95
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5, 3.0, 1 / 3)
    reduce_lowest: bool = True

    def shapes(self, num_levels: int) -> list[list[tuple[float, float]]]:
        """Returns the (scale, aspect ratio) pairs of one cell's anchors, for each level.

        Every level except a reduced lowest one ends with a square anchor between its own scale and
        the next level's (their geometric mean; 1 follows the highest level).
        """
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
        """Returns the number of anchors per cell of each level."""
        return [len(level) for level in self.shapes(num_levels)]


def make_anchors(
    spec: AnchorSpec, grids: tuple[tuple[int, int], ...], image_size: tuple[int, int]
) -> Float[Tensor, "A 4"]:
    """Returns the anchors of all levels.

    The order is by level, then row, then column, then the pairs of `AnchorSpec.shapes`.

    Args:
        spec: Scales and aspect ratios.
        grids: Size of each level's feature map, (h, w).
        image_size: Size of the network input, (H, W) in pixels.

    Returns:
        xyxy boxes in pixels of the network input, on the CPU. The memory is shared with later
        calls: do not write to it.
    """
    return torch.from_numpy(_anchor_boxes(spec, grids, image_size))


def coverage(boxes: Float[Tensor, "N 4"], anchors: Float[Tensor, "A 4"], threshold: float) -> float:
    """Returns the share of objects that overlap an anchor enough, 0..1.

    Args:
        boxes: xyxy boxes of the objects in pixels of the network input; at least one.
        anchors: xyxy anchors in pixels of the network input.
        threshold: Smallest intersection over union that counts, as in the matcher.
    """
    parts = boxes.split(_BOXES_AT_ONCE)
    best_iou = torch.cat([pairwise_iou(part, anchors).amax(dim=1) for part in parts])
    return float((best_iou >= threshold).float().mean())


def describe_coverage(
    boxes: Float[np.ndarray, "N 4"], anchors: Float[Tensor, "A 4"], threshold: float
) -> str:
    """Returns a line with the share of objects that overlap an anchor enough.

    A low share means that the anchors need other scales.

    Args:
        boxes: xyxy boxes of the objects, in pixels of the network input.
        anchors: xyxy anchors, in pixels of the network input.
        threshold: Smallest intersection over union that counts, as in the matcher.
    """
    if not len(boxes):
        return "anchors: no objects to compare them with"
    covered = coverage(torch.from_numpy(boxes), anchors, threshold)
    return (
        f"anchors: {len(anchors)}; {covered:.1%} of {len(boxes)} objects overlap an anchor "
        f"by {threshold} or more, the others train only their best anchor"
    )


# The cache holds arrays, not tensors: a tensor made during torch.export is a fake one and would
# stay in the cache.
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
