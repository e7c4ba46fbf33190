"""The last layer of an exported network, for one task: from raw outputs to named tensors.

It computes as much of the postprocessing as the user wants to have inside the exported file, in
tensor code that `torch.export` can trace. It also reads the tensors back, so the two sides of an
exported file stand in one class.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mbv2det.geometry import Frame, GraphFrame

WHERE = "aten::where"  # choice between two tensors, element by element


@dataclass(frozen=True)
class OutputOption:
    """The user's choice between the output layers of a task.

    Attributes:
        name: Name of the option of `export`.
        choices: What each value of the option puts into the file; the first value that a format can
            express is the default.
    """

    name: str
    choices: Mapping[str, str]


class OutputLayer(nn.Module, ABC):
    """Base class of the last layers of an exported network.

    Attributes:
        names: Names of the tensors that `forward` returns; no two tasks share one.
        operators: Operators of the layer that some formats lack, as `mbv2det::nms_mask`; a format
            that cannot express them cannot hold the layer.
        in_original_pixels: Whether the tensors are in the pixels of the images that the graph gets,
            also where the graph resizes them.
    """

    names: ClassVar[tuple[str, ...]]
    operators: ClassVar[tuple[str, ...]] = ()
    in_original_pixels: ClassVar[bool] = True

    @abstractmethod
    def forward(self, outputs: Any, frame: GraphFrame) -> tuple[Tensor, ...]:
        """Returns the named tensors of a batch, in the order of `names`.

        Args:
            outputs: Raw outputs of the task's head.
            frame: Frame of the images.
        """

    @abstractmethod
    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[Any]:
        """Returns the task's part of the `Prediction` of each image.

        Args:
            tensors: What an exported file returned for a batch, and its constants, by name.
            frames: Frame of each image; that of an image that the graph resizes maps to itself.
        """

    def constants(self, outputs: Any) -> dict[str, Tensor]:
        """Returns tensors that `read` needs and that are the same for every image.

        They travel in the description of the file, not in its graph.

        Args:
            outputs: Raw outputs of the task's head for any images.
        """
        return {}

    def differences(
        self, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Returns the largest difference of each tensor between two ways to compute a batch.

        Args:
            expected: Tensors of PyTorch.
            got: Tensors of an exported file, for the same images.
        """
        return {
            name: (got[name].double() - expected[name].double()).abs().max().item()
            for name in self.names
        }
