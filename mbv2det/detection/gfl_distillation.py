"""Distillation of dense points: scores and box distributions of a teacher with the same points.

- Boxes: localization distillation, the divergence of the softened distributions of the four sides
  (Zheng et al. 2022, arXiv:2102.12252, section "Localization Distillation", L_LD). The weight of a
  point is the teacher's best score, and terms are divided by the sum of these weights, as for
  GFocal in the code of CrossKD (Wang et al. 2024, arXiv:2306.11369).
- Classes: the quality focal loss (Li et al. 2020, arXiv:2006.04388, section 3.2, eq. 2) with the
  teacher's score as the target, on every point and class, as in CrossKD's code. Yang et al. 2023
  (arXiv:2308.14286) say why scores of a dense detector are compared one by one rather than by
  softmax over the classes.

Differs: localization distillation selects points by the annotation (the assigned points and those
near them); here the teacher's score alone decides, so that images and objects without annotation
are learned as well. Both papers divide the class term by the number of positive points.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.quality_loss import quality_focal_loss
from mbv2det.distillation import softened_divergence
from mbv2det.errors import ConfigError
from mbv2det.structures import LossTerms


@dataclass(frozen=True)
class GFLDistillation:
    """Distribution and class terms of a batch, from the raw outputs of student and teacher.

    Attributes:
        temperature: Divisor of the logits of the distributions.
        distribution_weight: Weight of the distribution term.
        confident_score: Smallest score of the best class of a point whose distributions are
            learned.
    """

    terms: ClassVar[tuple[str, ...]] = ("distill_distribution", "distill_classes")

    temperature: float
    distribution_weight: float = 0.25
    confident_score: float = 0.1

    def check(self, student: PointOutputs, teacher: PointOutputs) -> None:
        """Checks that both have the same points, and distributions of the same bins.

        Raises:
            ConfigError: If they have not.
        """
        bins, teacher_bins = student.sides.shape[-1], teacher.sides.shape[-1]
        if bins != teacher_bins:
            raise ConfigError(
                f"expected a teacher with the student's heads.detection.bins of {bins}, got "
                f"{teacher_bins}; train both with the same"
            )
        if not torch.equal(student.points, teacher.points):
            raise ConfigError(
                f"expected a teacher with the student's {len(student.points)} points, got "
                f"{len(teacher.points)} points, not the same; train both with the same method"
            )

    def __call__(self, student: PointOutputs, teacher: PointOutputs) -> LossTerms:
        """Returns the summed terms; the count is the sum of the scores of the confident points.

        Args:
            student: Raw outputs of the student for a batch.
            teacher: Raw outputs of the teacher for the same batch, without gradient.
        """
        with torch.autocast(student.logits.device.type, enabled=False):
            scores = teacher.logits.float().sigmoid()
            best = scores.amax(dim=-1)
            images, points = (best >= self.confident_score).nonzero(as_tuple=True)
            weight = best[images, points]
            divergence = softened_divergence(
                student.sides[images, points].float(),
                teacher.sides[images, points].float(),
                self.temperature,
            )
            distribution = (weight * divergence.mean(dim=-1)).sum()
            classes = quality_focal_loss(student.logits.float(), scores).sum()
        return LossTerms(
            {
                "distill_distribution": self.distribution_weight * distribution,
                "distill_classes": classes,
            },
            weight.sum(),
        )
