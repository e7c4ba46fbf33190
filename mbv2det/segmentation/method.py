"""What a segmentation head adds to any head: the loss that trains it."""

from abc import abstractmethod
from dataclasses import dataclass

from mbv2det.model_config import HeadConfig
from mbv2det.segmentation.loss import SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class SegmentationHeadConfig(HeadConfig):
    """Settings of a segmentation head.

    Every segmentation head gives `SegmentationOutputs`, so one postprocessing serves them all.
    """

    @abstractmethod
    def build_loss(self) -> SegmentationLoss:
        """The loss that trains the head."""
