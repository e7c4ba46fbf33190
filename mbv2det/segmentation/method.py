"""Settings that all segmentation heads share: each builds its loss."""

from abc import abstractmethod
from dataclasses import dataclass

from mbv2det.model_config import HeadConfig
from mbv2det.segmentation.loss import SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class SegmentationHeadConfig(HeadConfig):
    """Settings of a segmentation head.

    Every segmentation head returns `SegmentationOutputs`, so all share one postprocessing.
    """

    @abstractmethod
    def build_loss(self) -> SegmentationLoss:
        """Builds the loss that trains the head."""
