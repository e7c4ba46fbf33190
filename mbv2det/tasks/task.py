"""What a task is: everything that is particular to one kind of prediction.

A task bundles a head with its loss, postprocessing, metric, drawing and result files. Training,
evaluation and prediction loop over tasks and know none of them by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn

from mbv2det.config import DataConfig, EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.drawing import Colour
from mbv2det.geometry import Frame
from mbv2det.labels import LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig
from mbv2det.output_layer import OutputLayer, OutputOption
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import (
    Batch,
    Classification,
    Detections,
    LossTerms,
    Sample,
    SegmentationMap,
)


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one image, in the frame of its original file.

    Attributes:
        detection: Objects; None if the model has no detection head.
        segmentation: Label of every pixel; None if the model has no segmentation head.
        classification: Top classes of the whole image; None if the model has no classifier.
    """

    detection: Detections | None = None
    segmentation: SegmentationMap | None = None
    classification: Classification | None = None


@dataclass(frozen=True)
class DrawingStyle:
    """How predictions are drawn.

    Attributes:
        min_score: Lowest score of the detections that are drawn.
        show_scores: Whether scores stand beside the names; annotations have none.
        palette: Fixed colours by class name, as those of VOC's masks; other classes get a colour by
            their label.
    """

    min_score: float = 0.3
    show_scores: bool = True
    palette: Mapping[str, Colour] = field(default_factory=dict)


@runtime_checkable
class SplitMetric(Protocol):
    """A metric over one split: a `torchmetrics.Metric`, which takes seconds to import."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Adds the predictions of a batch."""
        ...

    def reset(self) -> None:
        """Forgets everything that was added."""
        ...

    def to(self, device: torch.device) -> Any:
        """Moves the state to a device."""
        ...

    def compute(self) -> Any:
        """Computes the section of metrics.json from everything that was added."""
        ...


@runtime_checkable
class ResultFiles(Protocol):
    """Collects the predictions of a task and writes them to files."""

    def add(self, name: str, prediction: Prediction) -> None:
        """Takes the prediction of one image.

        Args:
            name: Name of the image, unique among those of a run.
            prediction: What was predicted for it.
        """
        ...

    def close(self) -> list[str]:
        """Writes what is left to write; returns lines that tell the user where it is."""
        ...


class Task(ABC):
    """A head with its postprocessing, drawing and result files.

    Args:
        head: Settings of the head.
        label_map: Classes that are predicted.
        thresholds: Settings of the postprocessing.
    """

    name: ClassVar[str]
    head_kinds: ClassVar[Sequence[type[HeadConfig]]]  # the first is the default
    hub_pipeline: ClassVar[str]  # what the Hugging Face Hub calls the task
    output_option: ClassVar[OutputOption | None] = None  # what `export` lets the user choose

    def __init__(self, head: HeadConfig, label_map: LabelMap, thresholds: EvalConfig) -> None:
        self.label_map = label_map

    @abstractmethod
    def predict(self, outputs: Any, frames: Sequence[Frame]) -> list[Any]:
        """The task's part of the `Prediction` of each image, from the raw outputs of its head."""

    @abstractmethod
    def result_files(self, folder: Path, min_score: float) -> ResultFiles:
        """Files for predictions of any number of images.

        Args:
            folder: Where to write.
            min_score: Lowest score of the detections that pictures show.
        """

    @abstractmethod
    def raw_tensor(self, outputs: Any) -> Tensor:
        """Raw outputs as one tensor, to compare two implementations."""

    @abstractmethod
    def output_layer(self, choice: str, size: tuple[int, int]) -> OutputLayer:
        """The last layer of an exported network, which also reads what the file returns.

        Args:
            choice: One of the choices of `output_option`; empty if the task has none.
            size: Size of the network input, (height, width) in pixels.

        Raises:
            ConfigError: If the head cannot be exported.
        """

    @classmethod
    def name_classes(cls, data: DataConfig, label_map: LabelMap) -> DataConfig:
        """Data settings with class names filled in from weights, where the data has no names."""
        return data

    def palette(self) -> dict[str, Colour]:
        """Colours by class name that all tasks are to use; empty if the task has none."""
        return {}

    def draw(
        self, picture: Image.Image, prediction: Prediction, style: DrawingStyle
    ) -> Image.Image:
        """The picture with what was predicted drawn over it."""
        return picture

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """The picture with a legend or caption below it."""
        return picture

    def evaluation_model(self, model: nn.Module, thresholds: EvalConfig) -> nn.Module:
        """The model as it is evaluated: with augmentation at test time, if that is configured."""
        return model


class TrainableTask(Task):
    """A task that data sets train and measure.

    Args:
        head: Settings of the head.
        label_map: Classes that are predicted.
        thresholds: Settings of the postprocessing.
    """

    annotation: ClassVar[Literal["boxes", "masks"]]  # what data sets must have
    monitor: ClassVar[str]  # metric that selects the best weights
    per_class_metric: ClassVar[str]  # metric of the table of classes

    def __init__(self, head: HeadConfig, label_map: LabelMap, thresholds: EvalConfig) -> None:
        super().__init__(head, label_map, thresholds)
        self.weight = head.loss_weight

    @property
    @abstractmethod
    def loss_terms(self) -> Sequence[str]:
        """Names of the loss terms."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> LossTerms:
        """Loss terms of a batch from the raw outputs of the task's head."""

    @abstractmethod
    def metric(self, split: Annotations, settings: EvalSettings) -> SplitMetric:
        """A metric over one split; its result is the task's section of metrics.json."""

    @abstractmethod
    def update(self, metric: SplitMetric, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the predictions of a batch to the metric."""

    @abstractmethod
    def describe_data(self, outputs: Any, split: Annotations, preprocessor: Preprocessor) -> str:
        """A line about the training split: how well the head suits it, or what it holds.

        Args:
            outputs: Raw outputs of the task's head for any image.
            split: Annotations of the training split.
            preprocessor: Preprocessing of the images.
        """

    @abstractmethod
    def annotation_of(self, sample: Sample) -> Any:
        """The sample's annotation as the task's part of a `Prediction`; None without annotation."""

    @classmethod
    @abstractmethod
    def labels_in(cls, split: Annotations) -> LabelMap | None:
        """Classes that a split is annotated with; None if it has no annotation for the task."""

    @classmethod
    @abstractmethod
    def relabel(cls, split: Annotations, label_map: LabelMap) -> Annotations:
        """The split in the labels of another map, matched by name."""


def predict_all(
    tasks: Sequence[Task], outputs: Mapping[str, Any], frames: Sequence[Frame]
) -> list[Prediction]:
    """The predictions of all tasks for each image of a batch.

    Args:
        tasks: Tasks of the model.
        outputs: Raw outputs by task name.
        frames: Frame of each image.
    """
    columns = {task.name: task.predict(outputs[task.name], frames) for task in tasks}
    return [
        Prediction(**{name: column[row] for name, column in columns.items()})
        for row in range(len(frames))
    ]


def draw_prediction(
    image: UInt8[np.ndarray, "H W 3"],
    prediction: Prediction,
    tasks: Sequence[Task],
    min_score: float = DrawingStyle.min_score,
    show_scores: bool = True,
) -> Image.Image:
    """The image with everything that was predicted: label tints, boxes, and below it legends.

    Args:
        image: RGB, in the frame of the prediction.
        prediction: What to draw.
        tasks: Tasks of the model.
        min_score: Lowest score of the detections that are drawn.
        show_scores: Whether scores stand beside the names.
    """
    palette = {name: colour for task in tasks for name, colour in task.palette().items()}
    style = DrawingStyle(min_score, show_scores, palette)
    picture = Image.fromarray(image)
    for task in reversed(tasks):  # tints of pixels lie below boxes
        picture = task.draw(picture, prediction, style)
    for task in tasks:
        picture = task.annotate(picture, prediction)
    return picture


def mean_monitor(tasks: Sequence[TrainableTask], results: Mapping[str, Mapping[str, Any]]) -> float:
    """Mean of the metrics that select the best weights; 0 for a task without ground truth."""
    values = [results[task.name][task.monitor] or 0.0 for task in tasks]
    return sum(values) / len(values)


def metrics_document(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json: a section per task, and the number of images."""
    images = max(block["images"] for block in results.values())
    return {**{name: dict(block) for name, block in results.items()}, "images": images}
