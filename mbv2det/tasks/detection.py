"""Detection: boxes with classes and scores.

`METHODS` lists the detection methods. A new method has its own files and adds one entry.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from mbv2det.config import EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.data.objects import has_area
from mbv2det.data.statistics import count_objects, network_boxes
from mbv2det.detection.method import DetectionMethod
from mbv2det.distillation import DistillationLoss
from mbv2det.drawing import class_colours, draw_detections
from mbv2det.geometry import Frame
from mbv2det.heads.gfl_lite import GFLLiteConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig
from mbv2det.output_layer import OutputLayer, OutputOption
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Batch, Detections, LossTerms, Sample
from mbv2det.tasks.detection_files import CocoResults, DetectionTable, YoloLabels
from mbv2det.tasks.task import DrawingStyle, Prediction, ResultFiles, SplitMetric, TrainableTask

METHODS: list[type[DetectionMethod]] = [SSDLiteConfig, GFLLiteConfig]


class DetectionTask(TrainableTask):
    """Boxes, measured by COCO's and VOC's average precision.

    Args:
        head: Settings of the detection method.
        label_map: Classes of the objects.
        thresholds: Settings of the postprocessing.
    """

    name: ClassVar[str] = "detection"
    head_kinds: ClassVar[Sequence[type[HeadConfig]]] = METHODS
    hub_pipeline: ClassVar[str] = "object-detection"
    formats: ClassVar[Mapping[str, Callable[[Path, LabelMap, float], ResultFiles]]] = {
        "json": CocoResults,
        "csv": DetectionTable,
        "yolo": YoloLabels,
    }
    output_option: ClassVar[OutputOption | None] = OutputOption(
        "nms",
        {
            "inside": "boxes, scores, labels and count, after non-maximum suppression",
            "none": "box and class scores of every anchor",
        },
    )
    annotation: ClassVar[Literal["boxes", "masks"]] = "boxes"
    monitor: ClassVar[str] = "AP"
    per_class_metric: ClassVar[str] = "AP"

    def __init__(self, head: HeadConfig, label_map: LabelMap, thresholds: EvalConfig) -> None:
        super().__init__(head, label_map, thresholds)
        self.method = cast(DetectionMethod, head)
        self.thresholds = thresholds
        self.box_loss = self.method.build_loss()
        self.postprocess = self.method.build_postprocess(label_map, thresholds)

    def predict(self, outputs: Any, frames: Sequence[Frame]) -> list[Detections]:
        """Returns the detections of each image."""
        return self.postprocess(outputs, frames)

    def select(self, part: Detections, names: Collection[str]) -> Detections:
        """Returns the detections of the classes with these names."""
        labels = torch.tensor(self.labels_of(names), dtype=torch.int64, device=part.labels.device)
        return part[torch.isin(part.labels, labels)]

    def raw_tensor(self, outputs: Any) -> Tensor:
        """Returns the raw outputs as one tensor, to compare two implementations."""
        return self.method.raw_tensor(outputs)

    def output_layer(self, choice: str) -> OutputLayer:
        """The last layer of an exported network."""
        return self.method.build_output_layer(choice, self.label_map, self.thresholds)

    def draw(
        self, picture: Image.Image, prediction: Prediction, style: DrawingStyle
    ) -> Image.Image:
        """Draws boxes, names and scores on a picture."""
        if prediction.detection is None:
            return picture
        colours = class_colours(self.label_map, style.palette)
        return draw_detections(
            picture,
            prediction.detection,
            self.label_map,
            colours,
            style.min_score,
            style.show_scores,
        )

    @property
    def shown_metrics(self) -> Sequence[str]:
        """Names of the metrics in the table of epochs."""
        return ("AP", "AP50")

    @property
    def loss_terms(self) -> Sequence[str]:
        """Names of the loss terms."""
        return self.box_loss.terms

    def loss(self, outputs: Any, batch: Batch) -> LossTerms:
        """Returns the loss terms of a batch."""
        return self.box_loss(outputs, batch.boxes)

    def weigh_classes(self, weights: tuple[float, ...]) -> None:
        """Gives the class loss the weights of the classes."""
        self.box_loss = self.method.build_loss(weights)

    @classmethod
    def count_classes(cls, split: Annotations) -> Int64[np.ndarray, " K"]:
        """Returns the number of objects of each class, without ignored ones."""
        return count_objects(split)

    def distillation(self, teacher: HeadConfig, temperature: float) -> DistillationLoss:
        """Builds the detection method's loss for a teacher."""
        return self.method.build_distillation(teacher, self.label_map, temperature)

    def metric(self, split: Annotations, settings: EvalSettings) -> SplitMetric:
        """Builds the metric: average precision over the split."""
        # Imported here: it takes seconds, and predicting needs no metric.
        from mbv2det.metrics.detection_ap import DetectionAP

        assert split.objects is not None
        return DetectionAP(split.objects, settings.backend)

    def update(self, metric: SplitMetric, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the detections of the images whose objects are annotated."""
        rows = batch.boxes.annotated.nonzero().flatten().tolist()
        metric.update(
            [predictions[row].detection for row in rows], [batch.keys[row].index for row in rows]
        )

    def describe_data(self, outputs: Any, split: Annotations, preprocessor: Preprocessor) -> str:
        """Returns a line on how well the method's anchors or points suit the objects."""
        return self.method.describe_coverage(outputs, network_boxes(split, preprocessor))

    def annotation_of(self, sample: Sample) -> Detections | None:
        """Returns the annotated objects as detections of score 1."""
        if sample.instances is None:
            return None
        boxes, labels = sample.instances.boxes, sample.instances.labels
        return Detections(torch.from_numpy(boxes), torch.ones(len(boxes)), torch.from_numpy(labels))

    @classmethod
    def missing_truth(cls, split: Annotations) -> str | None:
        """Returns why a split has no object to find; None if it has one."""
        objects = split.objects
        if objects is None or not len(objects):
            return "it has no objects"
        if objects.crowd.all():
            return (
                f"all its {len(objects)} objects are crowds, which detectors need not find: set "
                "iscrowd to 0 for single objects"
            )
        if objects.ignore[has_area(objects.boxes)].all():
            return f"all its {len(objects)} objects are crowds, difficult, or without an area"
        return None

    @classmethod
    def labels_in(cls, split: Annotations) -> LabelMap | None:
        """Returns the classes of the annotated objects."""
        return None if split.objects is None else split.objects.label_map

    @classmethod
    def relabel(cls, split: Annotations, label_map: LabelMap) -> Annotations:
        """Returns the split with its objects in the labels of another map, matched by name."""
        return split.with_label_map(label_map)
