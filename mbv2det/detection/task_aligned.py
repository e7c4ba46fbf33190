"""Task-aligned assignment: the points whose predictions suit an object best, in class and box.

Source: Feng et al. 2021 (arXiv:2108.07755), section 3.2: the alignment t = s^alpha u^beta of
the score s for the object's class and the overlap u of the predicted box (eq. 4), and the m points
of largest alignment as positives, with t scaled to the largest overlap of the object as the target
of their class score.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class TaskAligned:
    """Selects points for objects by the predictions of the network.

    Attributes:
        num_points: Number m of points of each object.
        alpha: Exponent of the class score.
        beta: Exponent of the overlap.
    """

    num_points: int = 13
    alpha: float = 1.0
    beta: float = 6.0

    def alignment(
        self, scores: Float[Tensor, "B N P"], overlaps: Float[Tensor, "B N P"]
    ) -> Float[Tensor, "B N P"]:
        """Returns how well each prediction suits each object.

        Args:
            scores: Score of each point for the class of each object, 0..1.
            overlaps: Intersection over union of each object and the box of each point.
        """
        return scores.pow(self.alpha) * overlaps.pow(self.beta)

    def select(
        self, alignment: Float[Tensor, "B N P"], inside: Bool[Tensor, "B N P"]
    ) -> Bool[Tensor, "B N P"]:
        """Returns the positive points of each object; a point may be that of several objects.

        Args:
            alignment: Result of `alignment`.
            inside: The points that may be selected.
        """
        alignment = alignment.where(inside, 0)
        best = alignment.topk(min(self.num_points, alignment.shape[2]), dim=2).indices
        return torch.zeros_like(inside).scatter_(2, best, True) & (alignment > 0)

    def quality(
        self,
        alignment: Float[Tensor, "B N P"],
        overlaps: Float[Tensor, "B N P"],
        positive: Bool[Tensor, "B N P"],
    ) -> Float[Tensor, "B N P"]:
        """Returns the target of the class score of each object's positive points.

        The best aligned point of an object gets the object's largest overlap, the others less in
        proportion to their alignment.

        Args:
            alignment: Result of `alignment`.
            overlaps: Intersection over union of each object and the box of each point.
            positive: The positive points of each object.
        """
        alignment = alignment.where(positive, 0)
        largest = alignment.amax(dim=2, keepdim=True)
        scale = overlaps.where(positive, 0).amax(dim=2, keepdim=True)
        tiny = torch.finfo(alignment.dtype).tiny
        return alignment / largest.clamp(min=tiny) * scale
