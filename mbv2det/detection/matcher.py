"""Which anchor answers for which object (SSD paper section 2.2, "Matching strategy")."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mbv2det.geometry import box_area, pairwise_intersection, pairwise_iou
from mbv2det.structures import BoxTargets


@dataclass(frozen=True)
class Matches:
    """The role of every anchor of a batch.

    Attributes:
        box: Index of the matched object within its image; meaningless where not positive.
        positive: The anchor answers for an object.
        negative: The anchor must say background. Neither is set where an ignored object lies, nor
            in an image whose objects nobody annotated.
    """

    box: Int64[Tensor, "B A"]
    positive: Bool[Tensor, "B A"]
    negative: Bool[Tensor, "B A"]


@dataclass(frozen=True)
class Matcher:
    """Anchors overlapping an object by `threshold` are positive, and so is each object's best one.

    Two objects that want the same best anchor compete: the larger overlap wins and the other takes
    the best anchor left, so every object is learnt and their order does not matter (torchvision
    lets the last one win and drops the rest). Anchors that lie mostly inside an ignored object
    (crowd, difficult) take no part.

    Attributes:
        threshold: Intersection over union.
        ignore_threshold: Share of an anchor's area inside an ignored object.
    """

    threshold: float = 0.5
    ignore_threshold: float = 0.5

    def __call__(self, targets: BoxTargets, anchors: Float[Tensor, "A 4"]) -> Matches:
        """Matches a whole batch at once."""
        wanted = targets.valid & ~targets.ignore
        iou = pairwise_iou(targets.boxes, anchors).where(wanted[..., None], 0)
        best, box = iou.max(dim=1)
        positive = best >= self.threshold
        owner = assign_best_anchors(iou)
        box = owner.where(owner >= 0, box)
        positive = positive | (owner >= 0)

        inside = pairwise_intersection(targets.boxes, anchors) / box_area(anchors)
        inside = inside.where((targets.valid & targets.ignore)[..., None], 0)
        ignored = (inside >= self.ignore_threshold).any(dim=1)
        return Matches(box, positive, ~positive & ~ignored & targets.annotated[:, None])


def assign_best_anchors(iou: Float[Tensor, "B N A"]) -> Int64[Tensor, "B A"]:
    """Gives each object one anchor, largest overlap first.

    Every object proposes to its best free anchor, an anchor accepts the proposal that no open
    object can better, and the refused propose again: the greedy assignment by overlap, in a few
    rounds for the whole batch.

    Returns:
        The object that owns each anchor, or -1. Objects overlapping no free anchor own none.
    """
    owner = torch.full_like(iou[:, 0], -1, dtype=torch.int64)
    open_iou = iou
    while (open_iou > 0).any():
        overlap, anchor = open_iou.max(dim=2, keepdim=True)
        proposals = torch.zeros_like(iou).scatter(2, anchor, overlap)
        accepted, box = proposals.max(dim=1)
        # An anchor waits while an object that overlaps it more still proposes elsewhere.
        accepted = accepted.where(accepted == open_iou.amax(dim=1), 0)
        owner = box.where(accepted > 0, owner)
        settled = torch.zeros_like(iou[..., 0], dtype=torch.bool)
        images, taken = (accepted > 0).nonzero(as_tuple=True)
        settled[images, owner[images, taken]] = True
        free = (owner < 0)[:, None] & ~settled[..., None]
        open_iou = open_iou.where(free, 0)
    return owner
