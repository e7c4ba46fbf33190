"""What a predictor asks of a backend."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.graph import GraphInfo
from mbv2det.weights.header import WeightsInfo


@runtime_checkable
class Runtime(Protocol):
    """Runs a network on batches of images; several threads may call it at once.

    Attributes:
        name: Name of the backend.
        max_batch: Largest number of images of a call; None if there is no limit.
    """

    name: str
    max_batch: int | None

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Mapping[str, Any]:
        """Returns what the network computes, by name.

        Args:
            images: RGB images of the network's input size, on the CPU.
        """
        ...


@runtime_checkable
class GraphRuntime(Runtime, Protocol):
    """Runs an exported file: what it returns are the tensors of the output layers.

    Attributes:
        info: Header of the weights that the file was made from.
        graph: Description of the file.
    """

    info: WeightsInfo
    graph: GraphInfo
