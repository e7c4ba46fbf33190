"""What is timed: a network from image to prediction, in three stages."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

STAGES = ("preprocess", "network", "postprocess")

Images = Sequence[UInt8[np.ndarray, "_ _ 3"]]


@dataclass(frozen=True)
class Facts:
    """What a network costs besides time, and how good it is.

    Attributes:
        input_size: Size of the network input, (height, width) in pixels.
        parameters: Number of weights and biases.
        multiply_adds: Number of multiply-adds for one image, as `mbv2det.counting` counts them.
        file_bytes: Size of the file; None for a network without one.
        metrics: Metric of each task by name, 0..1; empty if it was never measured.
    """

    input_size: tuple[int, int]
    parameters: int
    multiply_adds: int
    file_bytes: int | None = None
    metrics: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Subject:
    """A network that is ready to be timed.

    Attributes:
        facts: Costs besides time.
        run: Predicts a batch of images and returns the seconds of each stage.
    """

    facts: Facts
    run: Callable[[Images], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Setup(ABC):
    """A network and the way it is run, before it is loaded; it can be sent to another process.

    Attributes:
        backend: Library that runs it.
        precision: Type of its weights and features.
        threads: Number of threads of an operation.
        batch: Number of images of a call.
    """

    backend: str = "torch"
    precision: str = "float32"
    threads: int = 1
    batch: int = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the network."""

    @abstractmethod
    def load(self) -> Subject:
        """Loads the network.

        Raises:
            ConfigError: If it cannot be loaded or run in this way.
        """


class StageClock:
    """Adds up the seconds that each stage takes.

    Args:
        device: Device whose work is waited for at the end of a stage.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def reset(self) -> None:
        """Sets every stage to 0."""
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def now(self) -> float:
        """Returns the time in seconds, once the device has done its work."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that adds its time to a stage."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            result = function(*args, **kwargs)
            self.seconds[stage] += self.now() - start
            return result

        return run
