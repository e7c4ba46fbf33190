"""From the configuration to objects: the only file that sees both."""

from pathlib import Path

import torch

from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.config import (
    BackboneConfig,
    Config,
    DataConfig,
    DetectionHeadConfig,
    EvalConfig,
    ModelConfig,
    SplitConfig,
)
from mbv2det.data.annotations import Annotations
from mbv2det.data.coco import read_coco
from mbv2det.data.shapes import ensure_shapes
from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.detection.anchors import AnchorSpec
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.loss import SSDLoss, focal_loss, softmax_loss
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.errors import ConfigError
from mbv2det.heads.ssdlite import SOURCES, SSDLite
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor, Normalize
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.tasks import DetectionTask, Task
from mbv2det.weights.torchvision import load_torchvision_backbone

# Score that a sigmoid's logits start at (focal loss paper, section 5.1).
_FOCAL_PRIOR = 0.01


def build_preprocess(config: Config) -> PreprocessSpec:
    """The preprocessing that the starting weights imply, at the configured size."""
    if config.backbone.weights is None:
        return PreprocessSpec(config.data.size, config.data.resize)
    return PreprocessSpec(config.data.size, config.data.resize, IMAGENET_MEAN, IMAGENET_STD)


def build_model(
    config: ModelConfig, preprocess: PreprocessSpec, labels: LabelMap
) -> DensePredictor:
    """The network with fresh weights, laid out as convolutions run fastest (channels last)."""
    if config.heads.detection is None:
        raise ConfigError("heads: expected at least one head, got none")
    if config.backbone.output_stride != 32:
        raise ConfigError(
            "backbone.output_stride: SSDLite's anchors are laid out for 32, "
            f"got {config.backbone.output_stride}"
        )
    backbone = build_backbone(config.backbone)
    heads = {DetectionTask.name: _detection_head(config.heads.detection, backbone, config, labels)}
    model = DensePredictor(Normalize(preprocess.mean, preprocess.std), backbone, heads)
    return model.to(memory_format=torch.channels_last)


def build_backbone(config: BackboneConfig) -> MobileNetV2:
    """The backbone with the features that the heads read."""
    return MobileNetV2(
        config.width_mult,
        config.output_stride,
        out_features=SOURCES,
        padding=config.padding,
        norm_eps=config.norm_eps,
        norm_momentum=config.norm_momentum,
        scale_last_layer=config.scale_last_layer,
    )


def load_backbone_weights(model: DensePredictor, config: BackboneConfig) -> None:
    """Fills the backbone from `backbone.weights`, where there is one."""
    if config.weights is not None:
        load_torchvision_backbone(model.backbone, Path(config.weights))


def _detection_head(
    head: DetectionHeadConfig, backbone: MobileNetV2, config: ModelConfig, labels: LabelMap
) -> SSDLite:
    return SSDLite(
        backbone.feature_specs,
        _class_slots(head, labels),
        anchors=AnchorSpec(head.min_scale, head.max_scale),
        lite=head.name == "ssdlite",
        width_mult=config.backbone.width_mult,
        padding=config.backbone.padding,
        norm_eps=head.norm_eps,
        norm_momentum=head.norm_momentum,
        prior=_FOCAL_PRIOR if head.class_loss == "focal" else None,
    )


def _class_slots(head: DetectionHeadConfig, labels: LabelMap) -> ClassSlots:
    if head.class_loss == "focal":
        return ClassSlots(len(labels), "sigmoid", background=False)
    return ClassSlots(len(labels), "softmax", background=True)


def build_tasks(config: ModelConfig, thresholds: EvalConfig, labels: LabelMap) -> list[Task]:
    """One task for each head."""
    head = config.heads.detection
    assert head is not None  # build_model refuses it
    postprocess = SSDPostprocess(
        _class_slots(head, labels),
        score_threshold=thresholds.score_threshold,
        nms_iou=thresholds.nms_iou,
        max_detections=thresholds.max_detections,
    )
    class_loss = focal_loss if head.class_loss == "focal" else softmax_loss
    loss = SSDLoss(class_loss, box_weight=head.box_weight)
    return [DetectionTask(loss, postprocess)]


def read_split(data: DataConfig, split: SplitConfig, key: str) -> Annotations:
    """The annotation of one split.

    Args:
        data: The data set.
        split: One of its splits.
        key: Of the split in the configuration, for messages.
    """
    root = Path(data.root)
    if data.embedded:
        ensure_shapes(root)
    if not root.is_dir():
        raise ConfigError(f"data.root: expected a folder, found none at {root}")
    if data.format == "voc":
        return read_voc(_voc_sources(root, split, key))
    if split.annotations is None or split.images is None:
        raise ConfigError(
            f"{key}: COCO needs {key}.annotations (a JSON file) and {key}.images (a folder), "
            "relative to data.root"
        )
    return read_coco(root / split.annotations, root / split.images)


def _voc_sources(root: Path, split: SplitConfig, key: str) -> list[VOCSource]:
    """Folders of each (year, split), or the one folder that uses names of its own."""
    if split.list is not None or split.split is None:
        named = root / split.list if split.list is not None else None
        return [_voc_source(root, split, named)]
    splits = (split.split,) if isinstance(split.split, str) else split.split
    years = (split.year,) * len(splits) if isinstance(split.year, int) else split.year
    if len(years) != len(splits):
        raise ConfigError(
            f"{key}: expected as many years as splits, got {len(years)} and {len(splits)}"
        )
    sources = []
    for year, name in zip(years, splits, strict=True):
        folder = root / f"VOC{year}" if (root / f"VOC{year}").is_dir() else root
        sources.append(_voc_source(folder, split, folder / f"ImageSets/Main/{name}.txt"))
    return sources


def _voc_source(folder: Path, split: SplitConfig, list_file: Path | None) -> VOCSource:
    return VOCSource(
        images=folder / (split.images or "JPEGImages"),
        annotations=folder / (split.annotations or "Annotations"),
        list_file=list_file,
    )
