"""Lovász-softmax (Berman et al. 2018, arXiv:1705.08790): a loss that falls as the IoU rises.

Cross entropy counts pixels, so that a label of few pixels weighs little. The IoU, by which
segmentation is measured, counts every label alike. This loss equals 1 - IoU where all probabilities
are 0 or 1, and interpolates between those values elsewhere (the Lovász extension).
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def lovasz_softmax(logits: Float[Tensor, "L N"], labels: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
    """Returns the loss of some pixels: the mean over the labels that occur among them.

    Args:
        logits: Logits of each label for each pixel.
        labels: Annotated label of each pixel; at least one pixel.
    """
    probabilities = logits.softmax(dim=0)
    losses = []
    for label in labels.unique():
        truth = labels == label
        errors = (truth.float() - probabilities[label]).abs()
        largest_first, order = errors.sort(descending=True)
        # Not a matrix product, which autocast would compute in bfloat16.
        losses.append((largest_first * jaccard_steps(truth[order])).sum())
    return torch.stack(losses).mean()


def jaccard_steps(truth: Bool[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Returns by how much 1 - IoU of a label rises as one pixel after the other becomes wrong.

    Args:
        truth: Whether each pixel has the label, in the order in which they become wrong; at least
            one has it.

    Source: Berman et al. 2018, algorithm 1.
    """
    has_label = truth.float()
    remaining = has_label.sum() - has_label.cumsum(0)
    union = has_label.sum() + (1 - has_label).cumsum(0)
    loss = 1 - remaining / union
    return torch.diff(loss, prepend=loss.new_zeros(1))
