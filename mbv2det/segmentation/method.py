"""Settings that all segmentation heads share: each builds its loss."""

from abc import abstractmethod
from dataclasses import dataclass

from mbv2det.distillation import DistillationLoss
from mbv2det.labels import LabelMap
from mbv2det.model_config import HeadConfig, expect
from mbv2det.segmentation.distillation import SegmentationDistillation
from mbv2det.segmentation.loss import SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class SegmentationHeadConfig(HeadConfig):
    """Settings of a segmentation head.

    Every segmentation head returns `SegmentationOutputs`, so all share one postprocessing.

    Attributes:
        lovasz_weight: Weight of Lovász-softmax, which is added to the cross entropy; 0 for cross
            entropy alone. It counts labels, where cross entropy counts pixels.
    """

    lovasz_weight: float = 0.0

    def __post_init__(self) -> None:
        weight = self.lovasz_weight
        expect("heads.segmentation.lovasz_weight", weight, weight >= 0, "at least 0")

    @abstractmethod
    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> SegmentationLoss:
        """Builds the loss that trains the head.

        Args:
            class_weights: Weight of each label; None for equal weights.
        """

    def build_distillation(
        self, teacher: HeadConfig, label_map: LabelMap, temperature: float
    ) -> DistillationLoss:
        """Builds the loss that compares the head with that of a larger network, its teacher.

        Args:
            teacher: Settings of the teacher's head: of any segmentation head.
            label_map: Labels of both.
            temperature: Divisor of the logits.
        """
        return SegmentationDistillation(temperature)
