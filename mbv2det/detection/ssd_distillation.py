"""Distillation of SSD: class scores and box deltas of a teacher with the same anchors.

Source: Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge Distillation"
(NeurIPS), sections 3.2 and 3.3.
Differs:
- Classes: the paper weights background by 1.5. Here anchors are selected as in the class loss of
  the student: with softmax and sigmoids those that the teacher calls foreground, and three times
  as many of the others, where the student differs most from the teacher; with the focal loss all
  anchors, weighted by how far the student is from the teacher.
- Boxes: in the paper the teacher's error bounds that of the student, and the annotation is the
  target. Here the teacher's deltas are the target, on the anchors that it calls foreground, also
  where there is no annotation.
- The layers of the backbone are not compared (hints, section 3.4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.loss import hard_negative_loss
from mbv2det.detection.matcher import Matches
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.detection.quality_loss import quality_focal_loss
from mbv2det.distillation import softened_divergence
from mbv2det.errors import ConfigError
from mbv2det.structures import LossTerms

ClassDistillation = Callable[[Tensor, Tensor, Matches, float], Tensor]


@dataclass(frozen=True)
class SSDDistillation:
    """Box and class terms of a batch, from the raw outputs of student and teacher.

    Attributes:
        class_loss: Function of (student's logits, teacher's logits, foreground, temperature) that
            returns the summed class term: `softmax_distillation`, `sigmoid_distillation` or
            `focal_distillation`.
        slots: Layout of the class logits of both.
        temperature: Divisor of the logits of softmax.
        box_weight: Weight of the box term.
        foreground_score: Smallest score of the best class of an anchor that the teacher calls
            foreground.
    """

    terms: ClassVar[tuple[str, ...]] = ("distill_boxes", "distill_classes")

    class_loss: ClassDistillation
    slots: ClassSlots
    temperature: float
    box_weight: float = 1.0
    foreground_score: float = 0.3

    def check(self, student: SSDOutputs, teacher: SSDOutputs) -> None:
        """Checks that both have the same anchors.

        Raises:
            ConfigError: If they have not.
        """
        if not torch.equal(student.anchors, teacher.anchors):
            raise ConfigError(
                f"expected a teacher with the student's {len(student.anchors)} anchors, got "
                f"{len(teacher.anchors)} anchors, not the same; train both with the same "
                "heads.detection.min_scale and max_scale"
            )

    def __call__(self, student: SSDOutputs, teacher: SSDOutputs) -> LossTerms:
        """Returns the summed terms; the count is that of anchors that the teacher calls foreground.

        Args:
            student: Raw outputs of the student for a batch.
            teacher: Raw outputs of the teacher for the same batch, without gradient.
        """
        with torch.autocast(student.logits.device.type, enabled=False):
            logits, teacher_logits = student.logits.float(), teacher.logits.float()
            best = self.slots.scores(teacher_logits).amax(dim=-1)
            foreground = best >= self.foreground_score
            # The teacher's boxes take the place of objects.
            matches = Matches(torch.zeros_like(best, dtype=torch.int64), foreground, ~foreground)
            boxes = F.smooth_l1_loss(
                student.deltas.float()[foreground],
                teacher.deltas.float()[foreground],
                reduction="sum",
            )
            classes = self.class_loss(logits, teacher_logits, matches, self.temperature)
        return LossTerms(
            {"distill_boxes": self.box_weight * boxes, "distill_classes": classes},
            foreground.sum().float(),
        )


def softmax_distillation(
    student: Float[Tensor, "B A slots"],
    teacher: Float[Tensor, "B A slots"],
    foreground: Matches,
    temperature: float,
) -> Float[Tensor, ""]:
    """Sums the divergence of the softened probabilities over foreground and hardest negatives.

    Args:
        student: Class logits of the student; slot 0 is the background.
        teacher: Class logits of the teacher.
        foreground: What the teacher calls foreground (positive) and background (negative).
        temperature: Divisor of the logits.
    """
    return hard_negative_loss(softened_divergence(student, teacher, temperature), foreground)


def sigmoid_distillation(
    student: Float[Tensor, "B A slots"],
    teacher: Float[Tensor, "B A slots"],
    foreground: Matches,
    temperature: float,
) -> Float[Tensor, ""]:
    """Sums the divergence of the scores over foreground and hardest negatives.

    It is the binary cross entropy of every slot, background included, less the entropy of the
    teacher, which has no gradient. Arguments as for `softmax_distillation`; scores have no
    temperature.
    """
    target = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, target, reduction="none")
    loss = F.binary_cross_entropy_with_logits(student, target, reduction="none") - entropy
    return hard_negative_loss(loss.sum(dim=-1), foreground)


def focal_distillation(
    student: Float[Tensor, "B A K"],
    teacher: Float[Tensor, "B A K"],
    foreground: Matches,
    temperature: float,
) -> Float[Tensor, ""]:
    """Sums the focal loss with the teacher's score as the target, over all anchors.

    The focal loss for targets between 0 and 1 is the quality focal loss. Arguments as for
    `softmax_distillation`, without a background slot; scores have no temperature.
    """
    return quality_focal_loss(student, teacher.sigmoid()).sum()
