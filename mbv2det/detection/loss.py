"""SSD loss (Liu et al. 2016, arXiv:1512.02325, section 2.2, eq. 1) with three class losses.

- Boxes: smooth L1 over the matched anchors.
- Classes: softmax with hard negative mining, as in the paper; sigmoids with hard negative mining,
  as in TensorFlow's MobileNetV2 detectors; or sigmoid focal loss (Lin et al. 2017,
  arXiv:1708.02002), which needs no mining.
- Both terms are summed and divided by the number of matched anchors of the batch.
- Everything is computed in float32 and for the whole batch at once.
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

ClassLoss = Callable[[Tensor, Tensor, Matches, Tensor | None], Tensor]


@dataclass(frozen=True)
class SSDLoss:
    """Box and class loss of a batch, from the raw outputs of the SSD head.

    Attributes:
        class_loss: Function of (logits, labels, matches, weights) that returns the summed class
            loss: `softmax_loss`, `sigmoid_loss` or `focal_loss`.
        matcher: Matcher of anchors and objects.
        box_coder: Encoder of the boxes that the predicted deltas are compared with.
        box_weight: Weight of the box term.
        class_weights: Weight of the class loss of the anchors of each class; None for 1.
            Background anchors keep the weight 1.
    """

    terms: ClassVar[tuple[str, ...]] = ("boxes", "classes")

    class_loss: ClassLoss
    matcher: Matcher = Matcher()
    box_coder: BoxCoder = BoxCoder()
    box_weight: float = 1.0
    class_weights: tuple[float, ...] | None = None

    def __call__(self, outputs: SSDOutputs, targets: BoxTargets) -> LossTerms:
        """Returns the summed terms `boxes` and `classes`; the count is that of matched anchors.

        Args:
            outputs: Raw outputs of the SSD head for a batch.
            targets: Objects of the batch, in pixels of the network input.
        """
        with torch.autocast(outputs.logits.device.type, enabled=False):
            matches = self.matcher(targets, outputs.anchors)
            boxes = targets.boxes.gather(1, matches.object_index[..., None].expand(-1, -1, 4))
            labels = targets.labels.gather(1, matches.object_index)
            positive = matches.positive
            target_deltas = self.box_coder.encode(
                boxes[positive], outputs.anchors.expand_as(boxes)[positive]
            )
            deltas = outputs.deltas.float()[positive]
            box_loss = F.smooth_l1_loss(deltas, target_deltas, reduction="sum")
            weights = target_weights(self.class_weights, labels, matches.positive)
            class_loss = self.class_loss(outputs.logits.float(), labels, matches, weights)
        return LossTerms(
            {"boxes": self.box_weight * box_loss, "classes": class_loss}, positive.sum().float()
        )


def target_weights(
    class_weights: tuple[float, ...] | None,
    labels: Int64[Tensor, "B A"],
    positive: Bool[Tensor, "B A"],
) -> Float[Tensor, "B A"] | None:
    """Returns the weight of the class loss of each anchor or point; None for 1.

    Args:
        class_weights: Weight of each class; None for 1.
        labels: Label of the object matched to each anchor, 0..K-1; read only where positive.
        positive: True for the anchors that are trained as objects; the others have the weight 1.
    """
    if class_weights is None:
        return None
    weights = torch.tensor(class_weights, device=labels.device)
    return torch.where(positive, weights[labels.clamp(min=0)], 1.0)


def softmax_loss(
    logits: Float[Tensor, "B A slots"],
    labels: Int64[Tensor, "B A"],
    matches: Matches,
    weights: Float[Tensor, "B A"] | None = None,
) -> Float[Tensor, ""]:
    """Sums the cross entropy of the positive anchors and of each image's hardest negatives.

    Args:
        logits: Class logits; slot 0 is the background.
        labels: Label of the object matched to each anchor, 0..K-1; read only where positive.
        matches: Training targets of the anchors.
        weights: Weight of each anchor; None for 1.
    """
    target = torch.where(matches.positive, labels + 1, 0)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return hard_negative_loss(weighted(loss.view_as(target), weights), matches)


def sigmoid_loss(
    logits: Float[Tensor, "B A slots"],
    labels: Int64[Tensor, "B A"],
    matches: Matches,
    weights: Float[Tensor, "B A"] | None = None,
) -> Float[Tensor, ""]:
    """Sums the binary cross entropy of the positive anchors and each image's hardest negatives.

    Every slot, background included, is an independent binary classification. The arguments are
    those of `softmax_loss`.

    Source: TensorFlow object_detection `ssdlite_mobilenet_v2_coco.config`, `core/losses.py`.
    Differs: near duplicates among the negatives are not suppressed before mining.
    """
    target = torch.where(matches.positive, labels + 1, 0)
    one_hot = F.one_hot(target, logits.shape[-1]).to(logits)
    loss = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(dim=-1)
    return hard_negative_loss(weighted(loss, weights), matches)


def focal_loss(
    logits: Float[Tensor, "B A K"],
    labels: Int64[Tensor, "B A"],
    matches: Matches,
    weights: Float[Tensor, "B A"] | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Sums the sigmoid focal loss of all positive and negative anchors.

    Args:
        logits: Class logits, without a background slot.
        labels: Label of the object matched to each anchor, 0..K-1; read only where positive.
        matches: Training targets of the anchors.
        weights: Weight of each anchor; None for 1.
        alpha: Weight of a positive target, 0..1; a negative target has the weight 1 - alpha.
        gamma: Focusing exponent, which down-weights easy examples; 0 for no down-weighting.
    """
    target = F.one_hot(labels.clamp(min=0), logits.shape[-1]).to(logits)
    target = target * matches.positive[..., None]
    loss = sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma).sum(dim=-1)
    return weighted(loss, weights)[matches.positive | matches.negative].sum()


def weighted(
    loss: Float[Tensor, "B A"], weights: Float[Tensor, "B A"] | None
) -> Float[Tensor, "B A"]:
    """Returns the loss of each anchor or point times its weight; without weights unchanged."""
    return loss if weights is None else loss * weights


def hard_negative_loss(
    loss: Float[Tensor, "B A"],
    matches: Matches,
    negatives_per_positive: int = 3,
    min_negatives: int = 3,
) -> Float[Tensor, ""]:
    """Sums the loss of the positive anchors and of each image's hardest negatives.

    Args:
        loss: Class loss of each anchor.
        matches: Training targets of the anchors.
        negatives_per_positive: Number of negatives for each positive; 3 in the paper.
        min_negatives: Minimum number of negatives per image, so that images without objects are
            trained on too.
    """
    num_negatives = (negatives_per_positive * matches.positive.sum(dim=1)).clamp(min=min_negatives)
    selected = hardest_negatives(loss.detach(), matches.negative, num_negatives)
    return loss[matches.positive | selected].sum()


def hardest_negatives(
    loss: Float[Tensor, "B A"],
    negative: Bool[Tensor, "B A"],
    num_negatives: Int64[Tensor, " B"],
) -> Bool[Tensor, "B A"]:
    """Selects the negatives of largest loss in each image.

    Args:
        loss: Class loss of each anchor.
        negative: True for the anchors to choose from.
        num_negatives: Number of anchors to select in each image; all negatives are selected where
            there are fewer.
    """
    order = loss.masked_fill(~negative, -torch.inf).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return negative & (rank < num_negatives[:, None])
