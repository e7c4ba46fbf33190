"""Adaptive training sample selection: the static assignment of points to objects.

Source: ATSS (Zhang et al. 2020, arXiv:1912.02424), section 4.1, algorithm 1. The k points of each
level nearest to the centre of an object are candidates; positive are those whose anchor overlaps
the object at least by mean plus standard deviation over the candidates, and which lie inside.
Differs: the anchor of a point has sides of 5 cells instead of 8, as in PicoDet (Yu et al. 2021,
arXiv:2111.00902), whose levels are as many; an object that would have no positive gets the point
inside whose anchor overlaps it most.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mbv2det.geometry import pairwise_iou


@dataclass(frozen=True)
class ATSS:
    """Selects points for objects by the overlap of square anchors around the points.

    Attributes:
        candidates: Number k of candidates of an object on each level.
        anchor_cells: Sides of the anchors, in cells.
    """

    candidates: int = 9
    anchor_cells: float = 5.0

    def overlaps(
        self, boxes: Float[Tensor, "B N 4"], points: Float[Tensor, "P 4"]
    ) -> Float[Tensor, "B N P"]:
        """Returns the intersection over union of objects and the anchors of points.

        Args:
            boxes: xyxy boxes of the objects, in pixels of the network input.
            points: Centre x, y and cell width and height of the points, in pixels.
        """
        half = points[:, 2:] * self.anchor_cells / 2
        return pairwise_iou(boxes, torch.cat([points[:, :2] - half, points[:, :2] + half], dim=1))

    def select(
        self,
        boxes: Float[Tensor, "B N 4"],
        points: Float[Tensor, "P 4"],
        levels: Int64[Tensor, " P"],
        overlaps: Float[Tensor, "B N P"],
        inside: Bool[Tensor, "B N P"],
    ) -> Bool[Tensor, "B N P"]:
        """Returns the positive points of each object; a point may be that of several objects.

        Args:
            boxes: xyxy boxes of the objects, in pixels of the network input.
            points: Centre x, y and cell width and height of the points, in pixels.
            levels: Level of each point.
            overlaps: Result of `overlaps`.
            inside: The points that may be selected.
        """
        nearest = self._nearest(boxes, points, levels)
        found = overlaps.gather(2, nearest)
        threshold = found.mean(dim=2) + found.std(dim=2)
        is_candidate = torch.zeros_like(inside).scatter_(2, nearest, True)
        selected = is_candidate & inside & (overlaps >= threshold[..., None])
        best = overlaps.where(inside, -1).argmax(dim=2, keepdim=True)
        fallback = torch.zeros_like(inside).scatter_(2, best, True) & inside
        return torch.where(selected.any(dim=2, keepdim=True), selected, fallback)

    def _nearest(
        self,
        boxes: Float[Tensor, "B N 4"],
        points: Float[Tensor, "P 4"],
        levels: Int64[Tensor, " P"],
    ) -> Int64[Tensor, "B N k"]:
        """Returns the points of each level that are nearest to the centre of each object."""
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        squares = (points[:, :2] - centres[..., None, :]).square().sum(dim=-1)
        nearest, start = [], 0
        for part in squares.split(levels.bincount().tolist(), dim=2):
            count = min(self.candidates, part.shape[2])
            nearest.append(part.topk(count, dim=2, largest=False).indices + start)
            start += part.shape[2]
        return torch.cat(nearest, dim=2)
