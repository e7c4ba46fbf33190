"""Assignment of points to objects for training: static first, then by the predictions.

Task-aligned assignment ranks points by what the network predicts, which means nothing for an object
that it does not find yet. So each object is assigned by ATSS until one of its points finds it, and
task-aligned from then on. PP-YOLOE (Xu et al. 2022, arXiv:2203.16250, section 2.2) changes at a
fixed epoch, for all objects at once. Here the change follows from the predictions: it needs no
count of epochs, and an object of a rare class may change later than others.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mbv2det.detection.atss import ATSS
from mbv2det.detection.matcher import Matches
from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.point_grid import points_inside
from mbv2det.detection.task_aligned import TaskAligned
from mbv2det.geometry import pairwise_iou
from mbv2det.structures import BoxTargets


@dataclass(frozen=True)
class PointTargets:
    """The training target of every point of a batch.

    Attributes:
        matches: Object of each point, or background, or nothing.
        quality: Target of the class score of each positive point, 0..1; 0 elsewhere.
    """

    matches: Matches
    quality: Float[Tensor, "B P"]


@dataclass(frozen=True)
class PointAssigner:
    """Assigns points to objects.

    A point that two objects select goes to the one that it overlaps more. Points inside an ignored
    object (crowd, difficult) that no other object selects have no target.

    Attributes:
        atss: Static assignment.
        aligned: Assignment by predictions.
        aligned_from: Score times overlap of an object's best prediction from which it is assigned
            by predictions: 0 for always, above 1 for never.
    """

    atss: ATSS = ATSS()
    aligned: TaskAligned = TaskAligned()
    aligned_from: float = 0.1

    @torch.no_grad()
    def __call__(
        self, outputs: PointOutputs, boxes: Float[Tensor, "B P 4"], targets: BoxTargets
    ) -> PointTargets:
        """Assigns the points of a batch.

        Args:
            outputs: Raw outputs of the head.
            boxes: xyxy boxes of the outputs, in pixels of the network input.
            targets: Objects of the batch, in pixels of the network input.
        """
        matchable = targets.valid & ~targets.ignore
        inside = points_inside(targets.boxes, outputs.points, min_cells=1.0) & matchable[..., None]
        overlaps = pairwise_iou(targets.boxes, boxes)
        scores = _scores_for_objects(outputs.logits, targets)
        alignment = self.aligned.alignment(scores, overlaps)
        best = (scores * overlaps).where(inside, 0).amax(dim=2, keepdim=True)
        is_aligned = (best > 0) & (best >= self.aligned_from)

        anchor_overlaps = self.atss.overlaps(targets.boxes, outputs.points)
        static = self.atss.select(
            targets.boxes, outputs.points, outputs.levels, anchor_overlaps, inside
        )
        selected = torch.where(is_aligned, self.aligned.select(alignment, inside), static)
        rank = torch.where(is_aligned, overlaps, anchor_overlaps).where(selected, -1)
        rank, object_index = rank.max(dim=1)
        owned = selected & (
            object_index[:, None] == torch.arange(selected.shape[1], device=rank.device)[:, None]
        )
        quality = torch.where(
            is_aligned, self.aligned.quality(alignment, overlaps, owned), overlaps
        )
        positive = rank >= 0
        ignored = points_inside(targets.boxes, outputs.points)
        ignored = (ignored & (targets.valid & targets.ignore)[..., None]).any(dim=1)
        matches = Matches(object_index, positive, ~positive & ~ignored & targets.annotated[:, None])
        return PointTargets(matches, quality.where(owned, 0).sum(dim=1))


def _scores_for_objects(
    logits: Float[Tensor, "B P K"], targets: BoxTargets
) -> Float[Tensor, "B N P"]:
    """Returns the score of each point for the class of each object."""
    labels = targets.labels.clamp(min=0)[..., None].expand(-1, -1, logits.shape[1])
    return logits.transpose(1, 2).gather(1, labels).sigmoid()
