"""Segmentation: a label for every pixel."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from PIL import Image
from torch import Tensor, nn

from mbv2det.config import DataConfig, EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.data.statistics import describe_masks
from mbv2det.drawing import Colour, add_legend, index_image, mask_legend, mask_palette, tint_labels
from mbv2det.geometry import Frame
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig
from mbv2det.output_layer import OutputLayer, OutputOption
from mbv2det.preprocess import Preprocessor
from mbv2det.segmentation.method import SegmentationHeadConfig
from mbv2det.segmentation.multi_scale_flip import MultiScaleFlip
from mbv2det.segmentation.output_layers import ClassMap, GridLogits
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.structures import Batch, LossTerms, Sample, SegmentationMap
from mbv2det.tasks.task import DrawingStyle, Prediction, ResultFiles, SplitMetric, TrainableTask


class SegmentationTask(TrainableTask):
    """A label for every pixel, measured by the mean intersection over union.

    Args:
        head: Settings of the segmentation head.
        label_map: Labels of the pixels, background included.
        thresholds: Settings of the postprocessing.
    """

    name: ClassVar[str] = "segmentation"
    head_kinds: ClassVar[Sequence[type[HeadConfig]]] = (DeepLabV3Config, LRASPPConfig)
    hub_pipeline: ClassVar[str] = "image-segmentation"
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
        self.pixel_loss = cast(SegmentationHeadConfig, head).build_loss()
        self.postprocess = SegmentationPostprocess()

    def predict(
        self, outputs: SegmentationOutputs, frames: Sequence[Frame]
    ) -> list[SegmentationMap]:
        """Label of every pixel of each image."""
        return self.postprocess(outputs, frames)

    def result_files(self, folder: Path, min_score: float) -> ResultFiles:
        """Index PNGs."""
        return IndexMaskFiles(folder / "masks", self.label_map)

    def raw_tensor(self, outputs: SegmentationOutputs) -> Tensor:
        """The logits."""
        return outputs.logits

    def output_layer(self, choice: str, size: tuple[int, int]) -> OutputLayer:
        """The last layer of an exported network."""
        return ClassMap(size) if choice == "classes" else GridLogits(self.postprocess)

    def palette(self) -> dict[str, Colour]:
        """VOC's colours, by VOC's names where it has the class."""
        return mask_palette(self.label_map)

    def draw(
        self, picture: Image.Image, prediction: Prediction, style: DrawingStyle
    ) -> Image.Image:
        """The picture tinted by label."""
        if prediction.segmentation is None:
            return picture
        labels = prediction.segmentation.labels.cpu().numpy()
        return tint_labels(picture, labels, self.label_map)

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """The picture above a legend of the labels in it."""
        if prediction.segmentation is None:
            return picture
        labels = prediction.segmentation.labels.cpu().numpy()
        return add_legend(picture, mask_legend(labels, self.label_map))

    def evaluation_model(self, model: nn.Module, thresholds: EvalConfig) -> nn.Module:
        """The model at several scales and mirrored, if that is configured."""
        if thresholds.scales == (1.0,) and not thresholds.flip:
            return model
        return MultiScaleFlip(model, thresholds.scales, thresholds.flip, task=self.name)

    @property
    def loss_terms(self) -> Sequence[str]:
        """Names of the loss terms."""
        return self.pixel_loss.terms

    def loss(self, outputs: SegmentationOutputs, batch: Batch) -> LossTerms:
        """Loss terms of a batch."""
        assert batch.masks is not None
        return self.pixel_loss(outputs, batch.masks)

    def metric(self, split: Annotations, settings: EvalSettings) -> SplitMetric:
        """Mean intersection over union over the split."""
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
        """The share of the pixels that each label has."""
        return describe_masks(split)

    def annotation_of(self, sample: Sample) -> SegmentationMap | None:
        """The annotated mask."""
        return None if sample.mask is None else SegmentationMap(torch.from_numpy(sample.mask))

    @classmethod
    def labels_in(cls, split: Annotations) -> LabelMap | None:
        """Labels of the masks."""
        return None if split.masks is None else split.masks.label_map

    @classmethod
    def relabel(cls, split: Annotations, label_map: LabelMap) -> Annotations:
        """The split with its masks in the labels of another map, matched by name."""
        return split.with_mask_label_map(label_map)

    @classmethod
    def name_classes(cls, data: DataConfig, label_map: LabelMap) -> DataConfig:
        """Gives a folder of masks, which has no names, those of the weights.

        Names that the data settings give themselves are kept.
        """
        if data.format != "folder" or data.classes != "auto" or data.mask_classes is not None:
            return data
        values = data.mask_values or label_map.ids
        return replace(data, classes=label_map.names, mask_values=values)


class IndexMaskFiles:
    """One index PNG per image, with the values of the data set and VOC's palette.

    Args:
        folder: Where to write.
        label_map: Labels of the pixels.
    """

    def __init__(self, folder: Path, label_map: LabelMap) -> None:
        self.folder = folder
        self.label_map = label_map
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, prediction: Prediction) -> None:
        """Writes the mask of one image."""
        if prediction.segmentation is not None:
            labels = prediction.segmentation.labels.cpu().numpy()
            index_image(labels, self.label_map).save(self.folder / f"{name}.png")

    def close(self) -> list[str]:
        """Tells where the files are."""
        return [f"index PNGs: {self.folder}"]
