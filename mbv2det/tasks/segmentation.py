"""Segmentation: a label for every pixel."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor, nn

from mbv2det.config import DataConfig, EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.statistics import count_labels, describe_masks
from mbv2det.distillation import DistillationLoss
from mbv2det.drawing import Colour, add_legend, mask_legend, mask_palette, tint_labels
from mbv2det.geometry import Frame
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig
from mbv2det.output_layer import OutputLayer, OutputOption
from mbv2det.preprocess import Preprocessor
from mbv2det.segmentation.method import SegmentationHeadConfig
from mbv2det.segmentation.multi_scale_flip import MultiScaleFlip
from mbv2det.segmentation.output_layers import ClassMap, GridLogits
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.structures import IGNORE_INDEX, Batch, LossTerms, Sample, SegmentationMap
from mbv2det.tasks.segmentation_files import IndexMaskFiles
from mbv2det.tasks.task import DrawingStyle, Prediction, ResultFiles, SplitMetric, TrainableTask

_LEGEND_ROWS = 2  # of a video


class SegmentationTask(TrainableTask):
    """A label for every pixel, measured by the mean intersection over union.

    Args:
        head: Settings of the segmentation head.
        label_map: Labels of the pixels, background included.
        thresholds: Settings of the postprocessing.
    """

    name: ClassVar[str] = "segmentation"
    head_kinds: ClassVar[Sequence[type[HeadConfig]]] = (
        DeepLabV3Config,
        DeepLabV3LightConfig,
        LRASPPConfig,
    )
    hub_pipeline: ClassVar[str] = "image-segmentation"
    formats: ClassVar[Mapping[str, Callable[[Path, LabelMap, float], ResultFiles]]] = {
        "masks": IndexMaskFiles
    }
    output_option: ClassVar[OutputOption | None] = OutputOption(
        "segmentation",
        {
            "classes": "the label of every pixel of the network input, as uint8",
            "logits": "the logits of each label on the cells of the head's grid",
        },
    )
    annotation: ClassVar[Literal["boxes", "masks"]] = "masks"
    monitor: ClassVar[str] = "mIoU"
    per_class_metric: ClassVar[str] = "IoU"

    def __init__(self, head: HeadConfig, label_map: LabelMap, thresholds: EvalConfig) -> None:
        super().__init__(head, label_map, thresholds)
        self.head = cast(SegmentationHeadConfig, head)
        self.pixel_loss = self.head.build_loss()
        self.postprocess = SegmentationPostprocess()

    def predict(
        self, outputs: SegmentationOutputs, frames: Sequence[Frame]
    ) -> list[SegmentationMap]:
        """Returns the label of every pixel of each image."""
        return self.postprocess(outputs, frames)

    def select(self, part: SegmentationMap, names: Collection[str]) -> SegmentationMap:
        """Returns the map with all other classes as background, or ignored without background."""
        rest = self.label_map.label_of_name.get(BACKGROUND, IGNORE_INDEX)
        table = torch.full((256,), rest, dtype=torch.uint8, device=part.labels.device)
        for label in self.labels_of(names):
            table[label] = label
        return SegmentationMap(table[part.labels.long()])

    @property
    def num_rows_below(self) -> int:
        """Space for the legend of a frame."""
        return _LEGEND_ROWS

    def raw_tensor(self, outputs: SegmentationOutputs) -> Tensor:
        """Returns the logits."""
        return outputs.logits

    def output_layer(self, choice: str) -> OutputLayer:
        """The last layer of an exported network."""
        return ClassMap() if choice == "classes" else GridLogits(self.postprocess)

    def palette(self) -> dict[str, Colour]:
        """Returns VOC's colours by class name, in VOC's spelling if VOC has the class."""
        return mask_palette(self.label_map)

    def draw(
        self, picture: Image.Image, prediction: Prediction, style: DrawingStyle
    ) -> Image.Image:
        """Tints a picture by label."""
        if prediction.segmentation is None:
            return picture
        labels = prediction.segmentation.labels.cpu().numpy()
        return tint_labels(picture, labels, self.label_map)

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """Adds a legend of the predicted labels below a picture."""
        if prediction.segmentation is None:
            return picture
        labels = prediction.segmentation.labels.cpu().numpy()
        return add_legend(picture, mask_legend(labels, self.label_map))

    def evaluation_model(self, model: nn.Module, thresholds: EvalConfig) -> nn.Module:
        """Returns the model, run at several scales and mirrored if configured."""
        if thresholds.scales == (1.0,) and not thresholds.flip:
            return model
        return MultiScaleFlip(model, thresholds.scales, thresholds.flip, task=self.name)

    @property
    def loss_terms(self) -> Sequence[str]:
        """Names of the loss terms."""
        return self.pixel_loss.terms

    def loss(self, outputs: SegmentationOutputs, batch: Batch) -> LossTerms:
        """Returns the loss terms of a batch."""
        assert batch.masks is not None
        return self.pixel_loss(outputs, batch.masks)

    def weigh_classes(self, weights: tuple[float, ...]) -> None:
        """Gives the cross entropy the weights of the labels."""
        self.pixel_loss = self.head.build_loss(weights)

    @classmethod
    def count_classes(cls, split: Annotations) -> Int64[np.ndarray, " L"]:
        """Returns the number of pixels of each label in evenly spaced masks."""
        return count_labels(split)

    def distillation(self, teacher: HeadConfig, temperature: float) -> DistillationLoss:
        """Builds the head's loss for a teacher."""
        return self.head.build_distillation(teacher, self.label_map, temperature)

    def metric(self, split: Annotations, settings: EvalSettings) -> SplitMetric:
        """Builds the metric: mean intersection over union over the split."""
        # Imported here: it takes seconds, and predicting needs no metric.
        from mbv2det.metrics.mean_iou import MeanIoU

        assert split.masks is not None
        return MeanIoU(split.masks.label_map.names)

    def update(self, metric: SplitMetric, predictions: Sequence[Prediction], batch: Batch) -> None:
        """Adds the pixels of the images that have a mask."""
        maps = [prediction.segmentation for prediction in predictions]
        metric.update(maps, batch.original_masks)

    def describe_data(
        self, outputs: SegmentationOutputs, split: Annotations, preprocessor: Preprocessor
    ) -> str:
        """Returns a line with the share of pixels of each label."""
        return describe_masks(split)

    def annotation_of(self, sample: Sample) -> SegmentationMap | None:
        """Returns the annotated mask; None if there is none."""
        return None if sample.mask is None else SegmentationMap(torch.from_numpy(sample.mask))

    @classmethod
    def missing_truth(cls, split: Annotations) -> str | None:
        """Returns why a split has no labelled pixels; None if it may have some."""
        masks = split.masks
        if masks is None or not masks.annotated.any():
            return "it has no masks"
        if isinstance(masks, InstanceMasks) and not len(masks.crowd):
            return "it has no objects, so that all its masks are background"
        if isinstance(masks, InstanceMasks) and masks.crowd.all():
            return (
                f"all its {len(masks.crowd)} outlines are crowds, which masks ignore: set iscrowd "
                "to 0 for single objects"
            )
        return None

    @classmethod
    def labels_in(cls, split: Annotations) -> LabelMap | None:
        """Returns the labels of the masks."""
        return None if split.masks is None else split.masks.label_map

    @classmethod
    def relabel(cls, split: Annotations, label_map: LabelMap) -> Annotations:
        """Returns the split with its masks in the labels of another map, matched by name."""
        return split.with_mask_label_map(label_map)

    @classmethod
    def name_classes(cls, data: DataConfig, label_map: LabelMap) -> DataConfig:
        """Returns the data settings with the weights' class names for a folder of masks.

        Class names in the data settings are kept.
        """
        if data.format != "folder" or data.classes != "auto" or data.mask_classes is not None:
            return data
        values = data.mask_values or label_map.ids
        return replace(data, classes=label_map.names, mask_values=values)
