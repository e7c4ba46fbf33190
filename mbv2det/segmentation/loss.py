"""DeepLab's loss: cross entropy of every annotated pixel at full resolution."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample
from mbv2det.structures import IGNORE_INDEX, LossTerms


@dataclass(frozen=True)
class SegmentationLoss:
    """Loss of a batch from the head's raw outputs, in float32.

    The logits are brought to the pixels of the mask rather than the mask to the logits, so that
    thin objects are learnt too.

    Attributes:
        auxiliary_weight: Multiplies the same loss of the auxiliary head; at 0, or of outputs
            without that head, there is no such term.

    Source: Chen et al. 2017 (arXiv:1706.05587), section 4.1, "Upsampling logits"; the auxiliary
        loss is that of Zhao et al. 2017 (arXiv:1612.01105), section 4.
    """

    auxiliary_weight: float = 0.0

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that a call gives."""
        return ("pixels", "auxiliary") if self.auxiliary_weight > 0 else ("pixels",)

    def __call__(self, outputs: SegmentationOutputs, masks: UInt8[Tensor, "B H W"]) -> LossTerms:
        """Terms `pixels` and `auxiliary`, counted in pixels that are not ignored.

        Without any such pixel the terms are zero, and so are the gradients of all logits: under
        distributed training every parameter must take part in every step.
        """
        at = outputs.rows, outputs.columns
        sums = {"pixels": summed_cross_entropy(outputs.logits, at, masks)}
        if outputs.auxiliary is not None and self.auxiliary_weight > 0:
            auxiliary = summed_cross_entropy(outputs.auxiliary, at, masks)
            sums["auxiliary"] = self.auxiliary_weight * auxiliary
        return LossTerms(sums, (masks != IGNORE_INDEX).sum().float())


def summed_cross_entropy(
    logits: Float[Tensor, "B L h w"],
    at: tuple[Float[Tensor, " h"], Float[Tensor, " w"]],
    masks: UInt8[Tensor, "B H W"],
) -> Float[Tensor, ""]:
    """Cross entropy of the interpolated logits, summed over all pixels that are not ignored.

    One image after the other, which is four times as fast on two CPU cores as the whole batch at
    once: 130 against 590 ms for 8 images of 513x513 pixels and 21 labels, gradients included.

    Args:
        logits: On the cells of a grid.
        at: Pixel rows and columns that the cells are centred on.
        masks: Labels, or `IGNORE_INDEX`.
    """
    height, width = masks.shape[1:]
    to = (
        torch.arange(height, device=logits.device, dtype=torch.float32),
        torch.arange(width, device=logits.device, dtype=torch.float32),
    )
    sums = [
        F.cross_entropy(
            resample(image_logits[None], at, to),
            mask[None].long(),
            ignore_index=IGNORE_INDEX,
            reduction="sum",
        )
        for image_logits, mask in zip(logits, masks, strict=True)
    ]
    return sum(sums, start=torch.zeros((), device=logits.device))
