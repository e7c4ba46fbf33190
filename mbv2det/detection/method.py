"""Detection methods: a head with its loss and its postprocessing.

SSDLite is one method (`mbv2det/heads/ssdlite.py`). A new method needs a file for its head with a
subclass of `DetectionMethod`, its parts in this folder, and one entry in
`mbv2det.tasks.detection.METHODS`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mbv2det.distillation import DistillationLoss
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.labels import LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig
from mbv2det.output_layer import OutputLayer
from mbv2det.structures import BoxTargets, Detections, LossTerms


@runtime_checkable
class DetectionLoss(Protocol):
    """Function from the raw outputs of a head and the objects of a batch to loss terms."""

    @property
    def terms(self) -> Sequence[str]:
        """Names of the loss terms."""
        ...

    def __call__(self, outputs: Any, targets: BoxTargets) -> LossTerms:
        """Returns the loss terms; their count is the number of matched anchors or points."""
        ...


@runtime_checkable
class DetectionPostprocess(Protocol):
    """Function from the raw outputs of a head to the detections of each image."""

    def __call__(self, outputs: Any, frames: Sequence[Frame]) -> list[Detections]:
        """Returns the detections of each image, in pixels of its original file."""
        ...


@dataclass(frozen=True, kw_only=True)
class DetectionMethod(HeadConfig):
    """Settings of a detection head, with the loss and the postprocessing that belong to it.

    Only the method's own loss and postprocessing, and the functions below, read the raw outputs of
    the head.
    """

    @abstractmethod
    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> DetectionLoss:
        """Builds the loss that trains the head.

        Args:
            class_weights: Weight of the class loss of objects of each class; None for 1. What is
                no object keeps the weight 1.
        """

    def build_distillation(
        self, teacher: HeadConfig, label_map: LabelMap, temperature: float
    ) -> DistillationLoss:
        """Builds the loss that compares the head with that of a larger network, its teacher.

        Args:
            teacher: Settings of the teacher's head.
            label_map: Classes of both.
            temperature: Divisor of the logits of softmax probabilities.

        Raises:
            ConfigError: If the method has no such loss, or the teacher's head does not suit it.
        """
        raise ConfigError(
            f"heads.detection.name: {self.name} has no distillation; set distill.weights to null"
        )

    @abstractmethod
    def build_postprocess(
        self, label_map: LabelMap, thresholds: EvalConfig
    ) -> DetectionPostprocess:
        """Builds the postprocessing of the head's raw outputs."""

    def build_output_layer(
        self, choice: str, label_map: LabelMap, thresholds: EvalConfig
    ) -> OutputLayer:
        """The last layer of an exported network.

        Args:
            choice: `inside` for final detections, `none` for boxes and scores before NMS; a method
                without NMS gives final detections for both.
            label_map: Classes to predict.
            thresholds: Settings of the postprocessing.

        Raises:
            ConfigError: If the method cannot be exported.
        """
        raise ConfigError(f"heads.detection.name: {self.name} cannot be exported")

    @abstractmethod
    def raw_tensor(self, outputs: Any) -> Float[Tensor, "B A values"]:
        """Returns the raw outputs as one tensor, to compare two implementations."""

    @abstractmethod
    def describe_coverage(self, outputs: Any, boxes: Float[np.ndarray, "N 4"]) -> str:
        """Returns a line on how well the method's anchors or points suit the objects of a data set.

        Args:
            outputs: Raw outputs for any image.
            boxes: xyxy boxes of the objects, in pixels of the network input.
        """
