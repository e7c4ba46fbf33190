"""What is kept of the predictions for a split while a model is measured on it."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from mbv2det.config import EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.drawing import index_image
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.structures import IGNORE_INDEX, Batch
from mbv2det.tasks import TrainableTask
from mbv2det.tasks.task import Prediction

MASK_SIDE = 320
"""Longest side of a mask in a report, in pixels."""


class TaskRecord(ABC):
    """The predictions of one task.

    Args:
        task: Task of the model.
        split: Annotations in the labels of the task.
    """

    def __init__(self, task: TrainableTask, split: Annotations) -> None:
        self.task = task
        self.split = split

    @abstractmethod
    def add(self, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the predictions of a batch."""


class DetectionRecord(TaskRecord):
    """Detections, in the metric that also measures them."""

    def __init__(self, task: TrainableTask, split: Annotations) -> None:
        super().__init__(task, split)
        self.metric: Any = task.metric(split, EvalSettings())

    def add(self, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the detections of the images whose objects are annotated."""
        self.task.update(self.metric, predictions, batch)


class SegmentationRecord(TaskRecord):
    """Pixel counts of every image, as the metric counts them, and small masks.

    Attributes:
        images: Index of each image that has a mask.
        confusion: Pixels of each image by annotated label (row) and predicted label (column).
        masks: Predicted mask by index of the image: a PNG file with the colours of the labels.
    """

    def __init__(self, task: TrainableTask, split: Annotations) -> None:
        super().__init__(task, split)
        self.metric: Any = task.metric(split, EvalSettings())
        self.images: list[int] = []
        self.confusion: list[Int64[np.ndarray, "L L"]] = []
        self.masks: dict[int, bytes] = {}

    def add(self, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Counts the pixels of the images that have a mask."""
        for prediction, key, mask in zip(
            predictions, batch.keys, batch.original_masks, strict=True
        ):
            if mask is None or prediction.segmentation is None or key.index in self.masks:
                continue
            self.metric.reset()
            self.metric.update([prediction.segmentation], [mask])
            self.images.append(key.index)
            self.confusion.append(self.metric.confusion.cpu().numpy())
            labels = prediction.segmentation.labels.cpu().numpy()
            self.masks[key.index] = mask_file(labels, self.task.label_map)


_RECORDS: Mapping[str, type[TaskRecord]] = {
    "detection": DetectionRecord,
    "segmentation": SegmentationRecord,
}


class SplitRecord:
    """The predictions of a model for a split, of all its tasks.

    Attributes:
        split: Annotations in the labels of the model.
        tasks: Record of each task, by name.
    """

    def __init__(self, tasks: Sequence[TrainableTask], split: Annotations) -> None:
        self.split = split
        self.tasks = {
            task.name: _RECORDS[task.name](task, split)
            for task in tasks
            if task.missing_truth(split) is None
        }

    def add(self, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the predictions of a batch."""
        for record in self.tasks.values():
            record.add(predictions, batch)


def mask_file(labels: UInt8[np.ndarray, "H W"], label_map: LabelMap) -> bytes:
    """Returns a mask as a small PNG file in which the background is transparent.

    Args:
        labels: Label of each pixel, or `IGNORE_INDEX`, which is half transparent.
        label_map: Label map of the masks.
    """
    height, width = labels.shape
    scale = min(1.0, MASK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = index_image(labels, label_map).resize(size, Image.Resampling.NEAREST)
    alpha = bytearray([255] * 256)
    alpha[IGNORE_INDEX] = 128
    background = label_map.label_of_name.get(BACKGROUND)
    if background is not None:
        alpha[label_map.ids[background]] = 0
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, transparency=bytes(alpha))
    return file.getvalue()
