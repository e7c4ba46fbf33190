"""Loss of dense points: quality-aware classes, GIoU and distributions of the boxes.

Source: Generalized Focal Loss (Li et al. 2020, arXiv:2006.04388), section 3.2, eq. 8, with the
assignment of `PointAssigner`.

- Boxes: GIoU loss (Rezatofighi et al. 2019, arXiv:1902.09630), torchvision's.
- Distribution: the distribution focal loss of the four sides.
- Classes: varifocal or quality focal loss of all points with a target.
- Box terms are weighted by quality. All terms are divided by the sum of the qualities of the batch,
  as in Feng et al. 2021 (arXiv:2108.07755), section 3.2; GFL divides the class term by the number
  of positives.
- Everything is computed in float32 and for the whole batch at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from mbv2det.detection.box_distribution import (
    boxes_to_distances,
    distances_to_boxes,
    distribution_focal_loss,
    expected_distances,
)
from mbv2det.detection.loss import target_weights, weighted
from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.point_assigner import PointAssigner, PointTargets
from mbv2det.structures import BoxTargets, LossTerms


@dataclass(frozen=True)
class GFLLoss:
    """Box, distribution and class loss of a batch, from the raw outputs of the head.

    Attributes:
        class_loss: Function of (logits, quality) that returns the class loss of each element.
        assigner: Assignment of points to objects.
        box_weight: Weight of the GIoU loss.
        distribution_weight: Weight of the distribution focal loss.
        class_weights: Weight of the class loss of the positive points of each class; None for 1.
            All other points keep the weight 1.
    """

    terms: ClassVar[tuple[str, ...]] = ("boxes", "distribution", "classes")

    class_loss: Callable[[Tensor, Tensor], Tensor]
    assigner: PointAssigner = PointAssigner()
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    class_weights: tuple[float, ...] | None = None

    def __call__(self, outputs: PointOutputs, targets: BoxTargets) -> LossTerms:
        """Returns the summed terms; the count is the sum of the qualities of the positive points.

        Args:
            outputs: Raw outputs of the head for a batch.
            targets: Objects of the batch, in pixels of the network input.
        """
        with torch.autocast(outputs.logits.device.type, enabled=False):
            outputs = PointOutputs(
                outputs.logits.float(), outputs.sides.float(), outputs.points, outputs.levels
            )
            boxes = distances_to_boxes(expected_distances(outputs.sides), outputs.points)
            assigned = self.assigner(outputs, boxes, targets)
            box_loss, distribution_loss = self._box_losses(outputs, boxes, targets, assigned)
            class_loss = self._class_loss(outputs, targets, assigned)
        return LossTerms(
            {
                "boxes": self.box_weight * box_loss,
                "distribution": self.distribution_weight * distribution_loss,
                "classes": class_loss,
            },
            assigned.quality.sum(),
        )

    def _box_losses(
        self,
        outputs: PointOutputs,
        boxes: Float[Tensor, "B P 4"],
        targets: BoxTargets,
        assigned: PointTargets,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Returns the sums of GIoU and distribution loss over the positive points."""
        images, points = assigned.matches.positive.nonzero(as_tuple=True)
        objects = targets.boxes[images, assigned.matches.object_index[images, points]]
        weight = assigned.quality[images, points]
        giou = generalized_box_iou_loss(boxes[images, points], objects)
        distances = boxes_to_distances(objects, outputs.points[points])
        distribution = distribution_focal_loss(outputs.sides[images, points], distances)
        return (weight * giou).sum(), (weight * distribution).sum()

    def _class_loss(
        self, outputs: PointOutputs, targets: BoxTargets, assigned: PointTargets
    ) -> Float[Tensor, ""]:
        """Returns the sum of the class loss over the points that have a target."""
        matches = assigned.matches
        labels = targets.labels.gather(1, matches.object_index).clamp(min=0)
        quality = torch.zeros_like(outputs.logits)
        quality.scatter_(2, labels[..., None], assigned.quality[..., None])
        loss = self.class_loss(outputs.logits, quality).sum(dim=-1)
        weights = target_weights(self.class_weights, labels, matches.positive)
        return weighted(loss, weights)[matches.positive | matches.negative].sum()
