"""What the class logits of one anchor mean."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ClassSlots:
    """The layout of a detector's class logits.

    Attributes:
        num_classes: K, without background.
        activation: `softmax` makes the slots compete, `sigmoid` scores each for itself.
        background: Slot 0 stands for background and is dropped from the scores.
    """

    num_classes: int
    activation: Literal["softmax", "sigmoid"]
    background: bool

    @property
    def num_slots(self) -> int:
        """Logits per anchor."""
        return self.num_classes + self.background

    def scores(self, logits: Float[Tensor, "*shape slots"]) -> Float[Tensor, "*shape K"]:
        """0..1 for each class, in float32."""
        logits = logits.float()
        scores = logits.softmax(dim=-1) if self.activation == "softmax" else logits.sigmoid()
        return scores[..., int(self.background) :]
