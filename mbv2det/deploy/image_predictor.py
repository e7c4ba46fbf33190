"""What predicts images, whatever runs the network."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mbv2det.tasks.task import Prediction, Task
from mbv2det.weights.header import WeightsInfo


@runtime_checkable
class ImagePredictor(Protocol):
    """Images in, predictions out."""

    @property
    def info(self) -> WeightsInfo:
        """Header of the weights: architecture, preprocessing, classes, thresholds."""
        ...

    @property
    def tasks(self) -> Sequence[Task]:
        """Tasks of the model."""
        ...

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Prediction]:
        """Predicts images; the results are in the pixels of each image.

        Args:
            images: RGB images of any sizes.
        """
        ...
