"""Distillation of segmentation heads: the label probabilities of a teacher for every pixel.

Source: Hinton et al. 2015 (arXiv:1503.02531), section 2, at each pixel, as the pixel-wise
distillation of Liu et al. 2019 (arXiv:1903.04197), section 3.
Differs: networks with different grids can be compared. Pixels that the annotation leaves out count
like others, as the teacher labels them too.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from mbv2det.distillation import softened_divergence
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample
from mbv2det.structures import LossTerms


@dataclass(frozen=True)
class SegmentationDistillation:
    """Pixel term of a batch, from the raw outputs of student and teacher.

    They are compared on the cells of the finer of the two grids, to which the logits of the other
    are interpolated, as the loss interpolates logits to the pixels of the mask. Interpolating both
    to all pixels would take 256 times the work at output stride 16 and add no information.

    Attributes:
        temperature: Divisor of the logits.
    """

    terms: ClassVar[tuple[str, ...]] = ("distill_pixels",)

    temperature: float

    def check(self, student: SegmentationOutputs, teacher: SegmentationOutputs) -> None:
        """Does nothing: networks with the same labels can always be compared."""

    def __call__(self, student: SegmentationOutputs, teacher: SegmentationOutputs) -> LossTerms:
        """Returns the summed term; the count is the number of cells.

        Args:
            student: Raw outputs of the student for a batch.
            teacher: Raw outputs of the teacher for the same batch, without gradient.
        """
        finer = max(student, teacher, key=lambda outputs: outputs.logits.shape[-2:].numel())
        cells = finer.rows, finer.columns
        with torch.autocast(student.logits.device.type, enabled=False):
            logits, teacher_logits = (
                resample(outputs.logits, (outputs.rows, outputs.columns), cells)
                for outputs in (student, teacher)
            )
            divergence = softened_divergence(logits, teacher_logits, self.temperature, dim=1)
        count = torch.full_like(divergence.sum(), divergence.numel())
        return LossTerms({"distill_pixels": divergence.sum()}, count.detach())
