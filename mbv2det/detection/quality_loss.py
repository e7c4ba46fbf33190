"""Class losses whose target is a quality 0..1 of the box instead of 1.

The class score then ranks boxes by how well they fit, which non-maximum suppression needs.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def varifocal_loss(
    logits: Float[Tensor, "*shape"],
    quality: Float[Tensor, "*shape"],
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Float[Tensor, "*shape"]:
    """Returns the varifocal loss, element by element.

    Only the negatives are down-weighted, by how easy they are; positives are weighted by quality.

    Args:
        logits: Class logits.
        quality: Quality of the box for the class; 0 for a negative.
        alpha: Weight of the negatives.
        gamma: Focusing exponent of the negatives.

    Source: VarifocalNet (Zhang et al. 2021, arXiv:2008.13367), section 3.2, eq. 2.
    """
    focus = alpha * logits.sigmoid().pow(gamma)
    weight = torch.where(quality > 0, quality, focus)
    return weight * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def quality_focal_loss(
    logits: Float[Tensor, "*shape"], quality: Float[Tensor, "*shape"], beta: float = 2.0
) -> Float[Tensor, "*shape"]:
    """Returns the quality focal loss, element by element.

    Args:
        logits: Class logits.
        quality: Quality of the box for the class; 0 for a negative.
        beta: Focusing exponent: the weight is the distance of score and quality to this power.

    Source: Generalized Focal Loss (Li et al. 2020, arXiv:2006.04388), section 3.2, eq. 2.
    """
    weight = (quality - logits.sigmoid()).abs().pow(beta)
    return weight * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
