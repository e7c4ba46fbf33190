"""Layout of a detector's class logits."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ClassSlots:
    """The meaning of an anchor's class logits: each slot is one class, or the background.

    Attributes:
        num_classes: Number of classes K, without background.
        activation: Function from logits to scores: `softmax` over all slots of an anchor, or
            `sigmoid` of each slot.
        background: Whether slot 0 is the background, followed by the classes; otherwise slot 0 is
            class 0.
    """

    num_classes: int
    activation: Literal["softmax", "sigmoid"]
    background: bool

    @property
    def num_slots(self) -> int:
        """Number of class logits per anchor."""
        return self.num_classes + self.background

    def scores(self, logits: Float[Tensor, "*shape slots"]) -> Float[Tensor, "*shape K"]:
        """Returns the score of each class, 0..1 in float32; the background is left out."""
        logits = logits.float()
        scores = logits.softmax(dim=-1) if self.activation == "softmax" else logits.sigmoid()
        return scores[..., 1:] if self.background else scores
