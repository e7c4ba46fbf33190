"""The SSD loss (Liu et al. 2016, section 2.2, eq. 1) with three ways of weighing classes.

- Boxes: smooth L1 over the matched anchors.
- Classes: softmax with hard negative mining, as the paper; the same with sigmoids, as TensorFlow's
  MobileNetV2 detectors; or sigmoid focal loss (Lin et al. 2017, arXiv:1708.02002), which needs no
  mining.
- Both are summed and divided by the batch's number of matched anchors.
- All of it in float32, over the whole batch at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mbv2det.detection.box_coder import BoxCoder
from mbv2det.detection.matcher import Matcher, Matches
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.structures import BoxTargets, LossTerms

ClassLoss = Callable[[Tensor, Tensor, Matches], Tensor]


@dataclass(frozen=True)
class SSDLoss:
    """Loss of a batch from the head's raw outputs.

    Attributes:
        class_loss: (logits, labels, matches) to the summed class loss; `softmax_loss`,
            `sigmoid_loss` or `focal_loss`.
        matcher: Gives anchors their role.
        box_coder: Encodes the boxes that the deltas are compared with.
        box_weight: Multiplies the box term.
    """

    TERMS: ClassVar = ("boxes", "classes")

    class_loss: ClassLoss
    matcher: Matcher = Matcher()
    box_coder: BoxCoder = BoxCoder()
    box_weight: float = 1.0

    def __call__(self, outputs: SSDOutputs, targets: BoxTargets) -> LossTerms:
        """Terms `boxes` and `classes`, counted in matched anchors."""
        with torch.autocast(outputs.logits.device.type, enabled=False):
            matches = self.matcher(targets, outputs.anchors)
            boxes = targets.boxes.gather(1, matches.box[..., None].expand(-1, -1, 4))
            labels = targets.labels.gather(1, matches.box)
            positive = matches.positive
            goal = self.box_coder.encode(
                boxes[positive], outputs.anchors.expand_as(boxes)[positive]
            )
            box_loss = F.smooth_l1_loss(outputs.deltas.float()[positive], goal, reduction="sum")
            class_loss = self.class_loss(outputs.logits.float(), labels, matches)
        return LossTerms(
            {"boxes": self.box_weight * box_loss, "classes": class_loss}, positive.sum().float()
        )


def softmax_loss(
    logits: Float[Tensor, "B A slots"], labels: Int64[Tensor, "B A"], matches: Matches
) -> Float[Tensor, ""]:
    """Cross entropy over the positives and each image's hardest negatives; slot 0 is background.

    Args:
        logits: With a background slot.
        labels: 0..K-1 of the matched object, read where positive.
        matches: Roles of the anchors.
    """
    target = torch.where(matches.positive, labels + 1, 0)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return mined(loss.view_as(target), matches)


def sigmoid_loss(
    logits: Float[Tensor, "B A slots"], labels: Int64[Tensor, "B A"], matches: Matches
) -> Float[Tensor, ""]:
    """As `softmax_loss`, each slot by itself: binary cross entropy, background's among them.

    Source: TensorFlow object_detection `ssdlite_mobilenet_v2_coco.config`, `core/losses.py`.
    Differs: negatives are mined without the suppression of near duplicates in front of it.
    """
    target = torch.where(matches.positive, labels + 1, 0)
    wanted = F.one_hot(target, logits.shape[-1]).to(logits)
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)
    return mined(loss, matches)


def mined(
    loss: Float[Tensor, "B A"],
    matches: Matches,
    negatives_per_positive: int = 3,
    min_negatives: int = 3,
) -> Float[Tensor, ""]:
    """The summed loss of the positives and of each image's hardest negatives.

    Args:
        loss: Of every anchor.
        matches: Roles of the anchors.
        negatives_per_positive: The paper's 3:1.
        min_negatives: For images without objects, which must teach something too.
    """
    quota = (negatives_per_positive * matches.positive.sum(dim=1)).clamp(min=min_negatives)
    hard = hardest(loss.detach(), matches.negative, quota)
    return loss[matches.positive | hard].sum()


def hardest(
    loss: Float[Tensor, "B A"], candidates: Bool[Tensor, "B A"], quota: Int64[Tensor, " B"]
) -> Bool[Tensor, "B A"]:
    """Marks the `quota` candidates of largest loss in each row, or all where there are fewer."""
    order = loss.masked_fill(~candidates, -torch.inf).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return candidates & (rank < quota[:, None])


def focal_loss(
    logits: Float[Tensor, "B A K"],
    labels: Int64[Tensor, "B A"],
    matches: Matches,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Sigmoid focal loss over every anchor that is positive or negative; no background slot.

    Args:
        logits: Without a background slot.
        labels: 0..K-1 of the matched object, read where positive.
        matches: Roles of the anchors.
        alpha: Weight of the positives.
        gamma: Exponent that quiets what is already right.
    """
    target = F.one_hot(labels.clamp(min=0), logits.shape[-1]).to(logits)
    target = target * matches.positive[..., None]
    loss = sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma)
    return loss[matches.positive | matches.negative].sum()
