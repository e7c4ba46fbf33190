"""Base classes of the tasks: all code that is specific to one kind of prediction.

A task combines a head with its loss, postprocessing, metric, drawing and result files. Training,
evaluation and prediction loop over tasks and do not depend on their names.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from mbv2det.config import DataConfig, EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.distillation import DistillationLoss
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
from mbv2det.tasks.result_files import ImageInfo


@dataclass(frozen=True)
class Prediction:
    """The predictions of a model for one image, in the frame of its original file.

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
    """Settings for drawing predictions.

    Attributes:
        min_score: Lowest score of the detections that are drawn.
        show_scores: Whether names are followed by scores; annotations have no scores.
        palette: Fixed colours by class name, such as those of VOC's masks; the colours of other
            classes depend on the label.
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
        """Removes everything that was added."""
        ...

    def to(self, device: torch.device) -> Any:
        """Moves the state to a device."""
        ...

    def compute(self) -> Any:
        """Computes the section of metrics.json from everything that was added."""
        ...


@runtime_checkable
class ResultFiles(Protocol):
    """A writer of a task's predictions in one format, made from (folder, label map, min_score).

    Everything that was added is on disk in valid files, even if the run is interrupted.
    """

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the prediction of one image.

        Args:
            image: Names of the image.
            prediction: Prediction of the image.
        """
        ...

    def close(self) -> list[str]:
        """Finishes writing, and returns lines with the paths of the files."""
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
    hub_pipeline: ClassVar[str]  # name of the task on the Hugging Face Hub
    # Result files by the name of their format, each made from a folder, a label map and the lowest
    # score of the detections that are shown.
    formats: ClassVar[Mapping[str, Callable[[Path, LabelMap, float], ResultFiles]]]
    output_option: ClassVar[OutputOption | None] = None  # what `export` lets the user choose

    def __init__(self, head: HeadConfig, label_map: LabelMap, thresholds: EvalConfig) -> None:
        self.label_map = label_map

    @abstractmethod
    def predict(self, outputs: Any, frames: Sequence[Frame]) -> list[Any]:
        """Returns the task's part of the `Prediction` of each image, from raw outputs."""

    @abstractmethod
    def select(self, part: Any, names: Collection[str]) -> Any:
        """Returns the task's part of a `Prediction` without classes that have other names."""

    def result_files(
        self, folder: Path, formats: Collection[str], min_score: float
    ) -> list[ResultFiles]:
        """Returns writers of the predictions of any number of images.

        Args:
            folder: Folder to write to.
            formats: Names of the formats; those that the task lacks are ignored.
            min_score: Lowest score of the detections that are shown.
        """
        wanted = [make for name, make in self.formats.items() if name in formats]
        return [make(folder, self.label_map, min_score) for make in wanted]

    def labels_of(self, names: Collection[str]) -> list[int]:
        """Returns the labels of the classes with these names that the task has."""
        labels = (self.label_map.find(name) for name in names)
        return [label for label in labels if label is not None]

    @abstractmethod
    def raw_tensor(self, outputs: Any) -> Tensor:
        """Returns the raw outputs as one tensor, to compare two implementations."""

    @abstractmethod
    def output_layer(self, choice: str) -> OutputLayer:
        """The last layer of an exported network, which also reads what the file returns.

        Args:
            choice: One of the choices of `output_option`; empty if the task has none.

        Raises:
            ConfigError: If the head cannot be exported.
        """

    @classmethod
    def name_classes(cls, data: DataConfig, label_map: LabelMap) -> DataConfig:
        """Returns the data settings, with the weights' class names if the data has none."""
        return data

    def palette(self) -> dict[str, Colour]:
        """Returns colours by class name for all tasks to use; empty if the task has none."""
        return {}

    @property
    def num_rows_below(self) -> int:
        """Rows of text below the frames of a video, where every frame has the same space."""
        return 0

    def draw(
        self, picture: Image.Image, prediction: Prediction, style: DrawingStyle
    ) -> Image.Image:
        """Draws a prediction on a picture."""
        return picture

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """Adds a legend or caption below a picture."""
        return picture

    def evaluation_model(self, model: nn.Module, thresholds: EvalConfig) -> nn.Module:
        """Returns the model for evaluation: with augmentation at test time, if configured."""
        return model


class TrainableTask(Task):
    """A task that can be trained and measured on a data set; arguments as for `Task`."""

    annotation: ClassVar[Literal["boxes", "masks"]]  # annotation that data sets must have
    monitor: ClassVar[str]  # metric that selects the best weights
    per_class_metric: ClassVar[str]  # metric in the table of classes

    def __init__(self, head: HeadConfig, label_map: LabelMap, thresholds: EvalConfig) -> None:
        super().__init__(head, label_map, thresholds)
        self.weight = head.loss_weight
        self.class_weights = head.class_weights

    @property
    def shown_metrics(self) -> Sequence[str]:
        """Names of the metrics in the table of epochs."""
        return (self.monitor,)

    @property
    @abstractmethod
    def loss_terms(self) -> Sequence[str]:
        """Names of the loss terms."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> LossTerms:
        """Returns the loss terms of a batch from the raw outputs of the task's head."""

    @abstractmethod
    def weigh_classes(self, weights: tuple[float, ...]) -> None:
        """Gives the loss the weight of each class, in the order of the labels."""

    @classmethod
    @abstractmethod
    def count_classes(cls, split: Annotations) -> Int64[np.ndarray, " classes"]:
        """Returns how many objects or pixels of each class a split has, or a sample of it."""

    @abstractmethod
    def distillation(self, teacher: HeadConfig, temperature: float) -> DistillationLoss:
        """Builds the loss that compares the task's head with that of a teacher.

        Args:
            teacher: Settings of the teacher's head.
            temperature: Divisor of the logits of softmax probabilities.

        Raises:
            ConfigError: If the head has no such loss, or the teacher's head does not suit it.
        """

    @abstractmethod
    def metric(self, split: Annotations, settings: EvalSettings) -> SplitMetric:
        """Builds the metric over one split; its result is the task's section of metrics.json."""

    @abstractmethod
    def update(self, metric: SplitMetric, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the predictions of a batch to the metric."""

    @abstractmethod
    def describe_data(self, outputs: Any, split: Annotations, preprocessor: Preprocessor) -> str:
        """Returns a line about the training split: its contents, or how well the head suits it.

        Args:
            outputs: Raw outputs of the task's head for any image.
            split: Annotations of the training split.
            preprocessor: Preprocessing of the images.
        """

    @abstractmethod
    def annotation_of(self, sample: Sample) -> Any:
        """Returns a sample's annotation as the task's part of a `Prediction`; None without one."""

    @classmethod
    @abstractmethod
    def missing_truth(cls, split: Annotations) -> str | None:
        """Returns why nothing can be learned from a split or measured on it; None if it can."""

    @classmethod
    @abstractmethod
    def labels_in(cls, split: Annotations) -> LabelMap | None:
        """Returns the classes of a split's annotation; None if it has none for the task."""

    @classmethod
    @abstractmethod
    def relabel(cls, split: Annotations, label_map: LabelMap) -> Annotations:
        """Returns the split in the labels of another map, matched by name."""


def predict_all(
    tasks: Sequence[Task], outputs: Mapping[str, Any], frames: Sequence[Frame]
) -> list[Prediction]:
    """Returns the predictions of all tasks for each image of a batch.

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
    """Draws everything that was predicted on an image: label tints, boxes, and legends below it.

    Args:
        image: RGB image in the frame of the prediction.
        prediction: Prediction to draw.
        tasks: Tasks of the model.
        min_score: Lowest score of the detections that are drawn.
        show_scores: Whether names are followed by scores.
    """
    palette = {name: colour for task in tasks for name, colour in task.palette().items()}
    style = DrawingStyle(min_score, show_scores, palette)
    picture = Image.fromarray(image)
    for task in reversed(tasks):  # segmentation first: tints are below boxes
        picture = task.draw(picture, prediction, style)
    for task in tasks:
        picture = task.annotate(picture, prediction)
    return picture


def mean_monitor(
    tasks: Sequence[TrainableTask], results: Mapping[str, Mapping[str, Any]]
) -> float | None:
    """Returns the mean of the tasks' `monitor` metrics.

    Tasks without ground truth are left out; None if no task has any.
    """
    values = [results[task.name][task.monitor] for task in tasks]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def metrics_document(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the content of metrics.json: a section per task, and the number of images."""
    images = max(block["images"] for block in results.values())
    return {**{name: dict(block) for name, block in results.items()}, "images": images}
