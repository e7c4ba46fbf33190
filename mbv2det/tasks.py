"""A task bundles what belongs together around one head: loss, postprocess and metric.

Training and evaluation loop over tasks and know none of them by name. Classification comes with
imported weights and only predicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from mbv2det.data.annotations import Annotations, spread
from mbv2det.detection.loss import SSDLoss
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.errors import DataError
from mbv2det.geometry import Frame, pairwise_iou
from mbv2det.metrics.detection_ap import DetectionAP
from mbv2det.metrics.ground_truth import GroundTruth
from mbv2det.metrics.mean_iou import MeanIoU
from mbv2det.preprocess import Preprocessor
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.structures import (
    IGNORE_INDEX,
    Batch,
    Classification,
    Detections,
    LossTerms,
    SegmentationMap,
)

_PREVIEWED_IMAGES = 2000
_PREVIEWED_MASKS = 100


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
        assert split.objects is not None
        sizes = [(i, split.size(i)) for i in spread(len(split), _PREVIEWED_IMAGES)]
        wanted = [(split.objects.instances(i, size), size) for i, size in sizes if size is not None]
        boxes = [
            preprocessor.frame(size).boxes_to_working(found.boxes[~found.ignore])
            for found, size in wanted
        ]
        best = [
            pairwise_iou(torch.from_numpy(found), outputs.anchors).amax(dim=1)
            for found in boxes
            if len(found)
        ]
        if not best:
            return "anchors: no objects to compare them with"
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
        return DetectionAP(GroundTruth.of(annotations))

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
        assert split.masks is not None
        annotated = np.flatnonzero(split.masks.annotated)
        counts = np.zeros(256, np.int64)
        for position in spread(len(annotated), _PREVIEWED_MASKS):
            mask = split.masks.read(int(annotated[position]))
            counts += np.bincount(mask.ravel(), minlength=256)
        pixels, names = max(1, int(counts.sum())), split.masks.labels.names
        if len(names) > 1 and np.count_nonzero(counts[: len(names)]) < 2:
            raise DataError(
                f"{split.name}: expected pixels of {', '.join(names)}, got one label alone in "
                f"{min(len(annotated), _PREVIEWED_MASKS)} masks and "
                f"{counts[IGNORE_INDEX] / pixels:.1%} ignored pixels: do data.mask_values and "
                "data.ignore_index (null for none) say what the values mean?"
            )
        order = np.argsort(-counts[: len(names)], kind="stable")
        seen = [f"{names[i]} {counts[i] / pixels:.1%}" for i in order if counts[i]]
        unseen = [names[i] for i in order if not counts[i]]
        parts = [", ".join(seen), f"ignored {counts[IGNORE_INDEX] / pixels:.1%}"]
        parts += [f"never seen: {', '.join(unseen)}"] if unseen else []
        looked = min(len(annotated), _PREVIEWED_MASKS)
        return f"pixels of {looked} of {len(annotated)} masks: {'; '.join(parts)}"

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
        return MeanIoU(annotations.masks.labels.names, annotations.mask)

    def update(self, metric: Metric, predictions: Sequence[SegmentationMap], batch: Batch) -> None:
        """Counts the pixels of the batch's images."""
        metric.update(predictions, [key.index for key in batch.keys])


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
