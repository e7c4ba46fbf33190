"""Distillation: a larger trained network, the teacher, teaches a smaller one, the student.

Each detection method and the segmentation heads build their own loss, which compares the raw
outputs of both networks for the same images. What all of them share is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mbv2det.model_config import expect
from mbv2det.structures import LossTerms


@dataclass(frozen=True)
class DistillConfig:
    """A teacher, whose outputs for each training batch the network learns besides the annotation.

    Attributes:
        weights: The teacher: all that `weights` takes, of any backbone and width, with the same
            heads and classes; null for none. It is only read, and not part of what the run writes.
        weight: Weight of the terms of distillation, beside the loss of the annotation with weight
            1.
        temperature: Divisor of the logits of softmax probabilities, so that less probable classes
            and distances count more; 1 for the probabilities themselves. Sigmoid scores have none.
    """

    weights: str | None = None
    weight: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        expect("distill.weight", self.weight, self.weight > 0, "above 0")
        expect("distill.temperature", self.temperature, self.temperature > 0, "above 0")


@runtime_checkable
class DistillationLoss(Protocol):
    """Function from the raw outputs of student and teacher for the same images to loss terms."""

    @property
    def terms(self) -> Sequence[str]:
        """Names of the loss terms; other than those of the head's own loss."""
        ...

    def check(self, student: Any, teacher: Any) -> None:
        """Checks that the outputs of the two networks can be compared.

        Raises:
            ConfigError: If they have different anchors, points or distributions.
        """
        ...

    def __call__(self, student: Any, teacher: Any) -> LossTerms:
        """Returns the loss terms; they are zero where both outputs are equal."""
        ...


def softened_divergence(
    student: Float[Tensor, "*shape"],
    teacher: Float[Tensor, "*shape"],
    temperature: float,
    dim: int = -1,
) -> Float[Tensor, "..."]:
    """Returns the Kullback-Leibler divergence of the student's softened probabilities.

    It is multiplied by the squared temperature, so that the size of the gradients hardly depends on
    the temperature.

    Args:
        student: Logits of the student.
        teacher: Logits of the teacher.
        temperature: Divisor of both logits before softmax.
        dim: Dimension of the classes, which is summed over.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2, eq. 1, and the factor T^2 named there.
    Differs: divergence instead of cross entropy. It lacks the entropy of the teacher, which has no
        gradient, so that it is zero for equal logits.
    """
    divergence = F.kl_div(
        (student / temperature).log_softmax(dim),
        (teacher / temperature).log_softmax(dim),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * divergence.sum(dim)
