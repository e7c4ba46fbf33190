"""A task bundles what belongs together around one head: loss, postprocess and metric.

Training and evaluation loop over tasks and know none of them by name. Classification comes with
imported weights and only predicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from mbv2det.data.annotations import Annotations
from mbv2det.data.statistics import describe_masks, network_boxes
from mbv2det.detection.loss import SSDLoss
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.geometry import Frame, pairwise_iou
from mbv2det.metrics.detection_ap import DetectionAP
from mbv2det.metrics.mean_iou import MeanIoU
from mbv2det.preprocess import Preprocessor
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.structures import (
    Batch,
    Classification,
    Detections,
    LossTerms,
    SegmentationMap,
)

_COMPARED_AT_ONCE = 256  # boxes with all anchors


@runtime_checkable
class PredictingTask(Protocol):
    """What the predictor asks of every task."""

    @property
    def name(self) -> str:
        """Key of its head and of its block in metrics.json."""
        ...

    def predict(self, outputs: Any, frames: Sequence[Frame]) -> list[Any]:
        """What the outputs say about each image, in the frame of its original file."""
        ...


@runtime_checkable
class Task(PredictingTask, Protocol):
    """What the trainer and the evaluator ask of a task besides."""

    @property
    def monitor(self) -> str:
        """The metric that the best checkpoint is chosen by."""
        ...

    @property
    def weight(self) -> float:
        """Of the task's loss in the sum over the tasks."""
        ...

    @property
    def loss_terms(self) -> Sequence[str]:
        """Names of the terms that `loss` gives."""
        ...

    def preview(self, outputs: Any, split: Annotations, preprocessor: Preprocessor) -> str:
        """A line about how well the head suits the training split, from any raw outputs."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> LossTerms:
        """The loss of a batch from the raw outputs of the task's head."""
        ...

    def metric(self, annotations: Annotations) -> Metric:
        """A metric over one split; its result is the task's block of metrics.json."""
        ...

    def update(self, metric: Metric, predictions: Sequence[Any], batch: Batch) -> None:
        """Shows the metric what was predicted for a batch."""
        ...


@dataclass(frozen=True)
class DetectionTask:
    """Boxes, with SSD's loss and COCO's and VOC's average precision."""

    name: ClassVar[str] = "detection"
    monitor: ClassVar[str] = "AP"
    loss_terms: ClassVar[Sequence[str]] = SSDLoss.terms

    ssd_loss: SSDLoss
    postprocess: SSDPostprocess
    weight: float = 1.0

    def preview(self, outputs: SSDOutputs, split: Annotations, preprocessor: Preprocessor) -> str:
        """How many objects have anchors of about their size: few means other scales are needed."""
        threshold = self.ssd_loss.matcher.threshold
        boxes = torch.from_numpy(network_boxes(split, preprocessor))
        if not len(boxes):
            return "anchors: no objects to compare them with"
        best = [
            pairwise_iou(part, outputs.anchors).amax(dim=1)
            for part in boxes.split(_COMPARED_AT_ONCE)
        ]
        covered = (torch.cat(best) >= threshold).float()
        return (
            f"anchors: {len(outputs.anchors)}; {covered.mean():.1%} of {len(covered)} objects "
            f"overlap one by {threshold} or more, the others train their best one only"
        )

    def loss(self, outputs: SSDOutputs, batch: Batch) -> LossTerms:
        """Box and class loss over the batch's matched anchors."""
        return self.ssd_loss(outputs, batch.boxes)

    def predict(self, outputs: SSDOutputs, frames: Sequence[Frame]) -> list[Detections]:
        """Detections of each image."""
        return self.postprocess(outputs, frames)

    def metric(self, annotations: Annotations) -> DetectionAP:
        """Average precision over the split."""
        assert annotations.objects is not None
        return DetectionAP(annotations.objects)

    def update(self, metric: Metric, predictions: Sequence[Detections], batch: Batch) -> None:
        """Counts the detections of the images whose objects are annotated."""
        known = batch.boxes.annotated.nonzero().flatten().tolist()
        metric.update([predictions[row] for row in known], [batch.keys[row].index for row in known])


@dataclass(frozen=True)
class SegmentationTask:
    """A label for every pixel, with cross entropy and the mean intersection over union."""

    name: ClassVar[str] = "segmentation"
    monitor: ClassVar[str] = "mIoU"

    pixel_loss: SegmentationLoss
    postprocess: SegmentationPostprocess
    weight: float = 1.0

    @property
    def loss_terms(self) -> Sequence[str]:
        """Names of the terms that `loss` gives."""
        return self.pixel_loss.terms

    def preview(
        self, outputs: SegmentationOutputs, split: Annotations, preprocessor: Preprocessor
    ) -> str:
        """What share of the pixels each label has: one that has none cannot be learnt.

        Raises:
            DataError: If there is but one label: the values do not mean what they are taken for.
        """
        return describe_masks(split)

    def loss(self, outputs: SegmentationOutputs, batch: Batch) -> LossTerms:
        """Cross entropy over the annotated pixels."""
        assert batch.masks is not None
        return self.pixel_loss(outputs, batch.masks)

    def predict(
        self, outputs: SegmentationOutputs, frames: Sequence[Frame]
    ) -> list[SegmentationMap]:
        """Labels of each image's pixels."""
        return self.postprocess(outputs, frames)

    def metric(self, annotations: Annotations) -> MeanIoU:
        """Mean intersection over union over the split."""
        assert annotations.masks is not None
        return MeanIoU(annotations.masks.label_map.names)

    def update(self, metric: Metric, predictions: Sequence[SegmentationMap], batch: Batch) -> None:
        """Counts the pixels of the batch's images."""
        metric.update(predictions, batch.original_masks)


@dataclass(frozen=True)
class ClassificationTask:
    """The likeliest classes of the whole image.

    Attributes:
        most: Classes named of an image.
    """

    name: ClassVar[str] = "classification"

    most: int = 5

    def predict(
        self, outputs: Float[Tensor, "B K"], frames: Sequence[Frame]
    ) -> list[Classification]:
        """The classes of each image, by softmax."""
        best = outputs.float().softmax(dim=1).topk(min(self.most, outputs.shape[1]), dim=1)
        return [Classification(*row) for row in zip(best.values, best.indices, strict=True)]


def monitored(tasks: Sequence[Task], results: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean over the tasks of the metric each is judged by; 0 where there was no ground truth."""
    values = [results[task.name][task.monitor] or 0.0 for task in tasks]
    return sum(values) / len(values)
