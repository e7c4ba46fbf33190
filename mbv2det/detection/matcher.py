"""Matching of anchors and objects for training (SSD paper section 2.2, "Matching strategy")."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mbv2det.geometry import box_area, pairwise_intersection, pairwise_iou
from mbv2det.structures import BoxTargets


@dataclass(frozen=True)
class Matches:
    """The training target of every anchor of a batch: an object, background, or nothing.

    Attributes:
        object_index: Index of the matched object within its image; meaningless where not positive.
        positive: True where the anchor is matched to an object.
        negative: True where the anchor's target is background. An anchor is neither positive nor
            negative if it lies on an ignored object, or in an image whose objects are not
            annotated.
    """

    object_index: Int64[Tensor, "B A"]
    positive: Bool[Tensor, "B A"]
    negative: Bool[Tensor, "B A"]


@dataclass(frozen=True)
class Matcher:
    """Matches anchors that overlap an object by `threshold`, and the best anchor of each object.

    Where two objects have the same best anchor, the one with the larger overlap gets it and the
    other gets its best remaining anchor: a greedy one-to-one assignment by descending IoU. Every
    object that overlaps a free anchor is therefore trained, and the order of the objects does not
    matter (torchvision gives the anchor to the last object and drops the others). Anchors that lie
    mostly inside an ignored object (crowd, difficult) have no target.

    Attributes:
        threshold: Smallest intersection over union of a positive anchor and its object.
        ignore_threshold: Smallest share of an anchor's area inside an ignored object for which the
            anchor has no target.
    """

    threshold: float = 0.5
    ignore_threshold: float = 0.5

    def __call__(self, targets: BoxTargets, anchors: Float[Tensor, "A 4"]) -> Matches:
        """Matches the anchors with the objects of a batch.

        Args:
            targets: Objects of the batch, in pixels of the network input.
            anchors: xyxy anchors in pixels of the network input.
        """
        matchable = targets.valid & ~targets.ignore
        iou = pairwise_iou(targets.boxes, anchors).where(matchable[..., None], 0)
        best_iou, best_object = iou.max(dim=1)
        assigned = assign_best_anchors(iou)
        object_index = assigned.where(assigned >= 0, best_object)
        positive = (best_iou >= self.threshold) | (assigned >= 0)

        covered = pairwise_intersection(targets.boxes, anchors) / box_area(anchors)
        covered = covered.where((targets.valid & targets.ignore)[..., None], 0)
        ignored = (covered >= self.ignore_threshold).any(dim=1)
        return Matches(object_index, positive, ~positive & ~ignored & targets.annotated[:, None])


def assign_best_anchors(iou: Float[Tensor, "B N A"]) -> Int64[Tensor, "B A"]:
    """Gives each object one anchor: the greedy one-to-one assignment by descending IoU.

    The algorithm runs in rounds over the whole batch. In each round every unassigned object
    proposes to its best free anchor. A free anchor accepts the proposal with the largest overlap,
    unless another unassigned object overlaps it even more; rejected objects propose again in the
    next round.

    Args:
        iou: Intersection over union of objects and anchors; 0 for pairs that must not match.

    Returns:
        Index of the object that each anchor is assigned to, or -1. An object that overlaps no free
        anchor gets none.
    """
    owner = torch.full_like(iou[:, 0], -1, dtype=torch.int64)
    open_iou = iou  # 0 where the object is assigned or the anchor is taken
    while (open_iou > 0).any():
        overlap, anchor = open_iou.max(dim=2, keepdim=True)
        proposals = torch.zeros_like(iou).scatter(2, anchor, overlap)
        accepted, proposer = proposals.max(dim=1)
        # An anchor waits while an object that overlaps it more proposes to another anchor.
        accepted = accepted.where(accepted == open_iou.amax(dim=1), 0)
        owner = proposer.where(accepted > 0, owner)
        assigned = torch.zeros_like(iou[..., 0], dtype=torch.bool)
        images, anchors = (accepted > 0).nonzero(as_tuple=True)
        assigned[images, owner[images, anchors]] = True
        still_open = (owner < 0)[:, None] & ~assigned[..., None]
        open_iou = open_iou.where(still_open, 0)
    return owner
