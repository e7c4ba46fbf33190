"""From the configuration to objects: the only file that sees both."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.config import (
    BackboneConfig,
    Config,
    DataConfig,
    DetectionHeadConfig,
    EvalConfig,
    HeadsConfig,
    ModelConfig,
    SplitConfig,
)
from mbv2det.data import splits
from mbv2det.data.annotations import Annotations
from mbv2det.detection.anchors import AnchorSpec
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.loss import SSDLoss, focal_loss, softmax_loss
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.heads import deeplab_v3, lraspp, ssdlite
from mbv2det.heads.deeplab_v3 import DeepLabV3
from mbv2det.heads.lraspp import LRASPP
from mbv2det.heads.ssdlite import SSDLite
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor, Normalize
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.multi_view import MultiView
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.tasks import DetectionTask, SegmentationTask, Task
from mbv2det.weights.torchvision import load_torchvision_backbone

# Score that a sigmoid's logits start at (focal loss paper, section 5.1).
_FOCAL_PRIOR = 0.01


def build_preprocess(config: Config) -> PreprocessSpec:
    """The preprocessing that the starting weights imply, at the configured size."""
    if config.backbone.weights is None:
        return PreprocessSpec(config.data.size, config.data.resize)
    return PreprocessSpec(config.data.size, config.data.resize, IMAGENET_MEAN, IMAGENET_STD)


def build_model(
    config: ModelConfig, preprocess: PreprocessSpec, labels: Mapping[str, LabelMap]
) -> DensePredictor:
    """The network with fresh weights, laid out as convolutions run fastest (channels last).

    Args:
        config: Architecture.
        preprocess: Of its images.
        labels: Of each task.
    """
    backbone = build_backbone(config)
    heads = {name: _HEADS[name](config, backbone, labels[name]) for name in config.heads.tasks}
    model = DensePredictor(Normalize(preprocess.mean, preprocess.std), backbone, heads)
    return model.to(memory_format=torch.channels_last)


def build_backbone(config: ModelConfig) -> MobileNetV2:
    """The backbone with the features that the heads read."""
    backbone = config.backbone
    return MobileNetV2(
        backbone.width_mult,
        backbone.output_stride,
        out_features=_sources(config.heads),
        padding=backbone.padding,
        norm_eps=backbone.norm_eps,
        norm_momentum=backbone.norm_momentum,
        scale_last_layer=backbone.scale_last_layer,
    )


def _sources(heads: HeadsConfig) -> tuple[str, ...]:
    """Features that the heads read, each once."""
    names = list(ssdlite.SOURCES) if heads.detection else []
    if heads.segmentation and heads.segmentation.name == "lraspp":
        names += lraspp.SOURCES
    elif heads.segmentation:
        auxiliary = heads.segmentation.auxiliary_weight > 0
        names += deeplab_v3.sources(heads.segmentation.decoder, auxiliary)
    return tuple(dict.fromkeys(names))


def load_backbone_weights(model: DensePredictor, config: BackboneConfig) -> None:
    """Fills the backbone from `backbone.weights`, where there is one."""
    if config.weights is not None:
        load_torchvision_backbone(model.backbone, Path(config.weights))


def _detection_head(config: ModelConfig, backbone: MobileNetV2, labels: LabelMap) -> nn.Module:
    head = config.heads.detection
    assert head is not None
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


def _segmentation_head(config: ModelConfig, backbone: MobileNetV2, labels: LabelMap) -> nn.Module:
    head = config.heads.segmentation
    assert head is not None
    shared: dict[str, Any] = {
        "padding": config.backbone.padding,
        "norm_eps": head.norm_eps,
        "norm_momentum": head.norm_momentum,
    }
    if head.channels is not None:
        shared["channels"] = head.channels
    if head.name == "lraspp":
        return LRASPP(backbone.feature_specs, len(labels), **shared)
    return DeepLabV3(
        backbone.feature_specs,
        len(labels),
        aspp=head.aspp,
        decoder=head.decoder,
        auxiliary=head.auxiliary_weight > 0,
        dropout=head.dropout,
        **shared,
    )


_HEADS = {DetectionTask.name: _detection_head, SegmentationTask.name: _segmentation_head}


def _class_slots(head: DetectionHeadConfig, labels: LabelMap) -> ClassSlots:
    if head.class_loss == "focal":
        return ClassSlots(len(labels), "sigmoid", background=False)
    return ClassSlots(len(labels), "softmax", background=True)


def build_tasks(
    config: ModelConfig, thresholds: EvalConfig, labels: Mapping[str, LabelMap]
) -> list[Task]:
    """One task for each head."""
    return [_TASKS[name](config.heads, thresholds, labels[name]) for name in config.heads.tasks]


def _detection_task(heads: HeadsConfig, thresholds: EvalConfig, labels: LabelMap) -> Task:
    head = heads.detection
    assert head is not None
    postprocess = SSDPostprocess(
        _class_slots(head, labels),
        score_threshold=thresholds.score_threshold,
        nms_iou=thresholds.nms_iou,
        max_detections=thresholds.max_detections,
    )
    class_loss = focal_loss if head.class_loss == "focal" else softmax_loss
    loss = SSDLoss(class_loss, box_weight=head.box_weight)
    return DetectionTask(loss, postprocess, head.loss_weight)


def _segmentation_task(heads: HeadsConfig, thresholds: EvalConfig, labels: LabelMap) -> Task:
    head = heads.segmentation
    assert head is not None
    loss = SegmentationLoss(head.auxiliary_weight)
    return SegmentationTask(loss, SegmentationPostprocess(), head.loss_weight)


_TASKS = {DetectionTask.name: _detection_task, SegmentationTask.name: _segmentation_task}


def seen_by(model: DensePredictor, thresholds: EvalConfig, tasks: Collection[str]) -> nn.Module:
    """The model as evaluation of the tasks runs it: at several scales and mirrored, if asked to."""
    plain = thresholds.scales == (1.0,) and not thresholds.flip
    if plain or SegmentationTask.name not in tasks:
        return model
    return MultiView(model, thresholds.scales, thresholds.flip, task=SegmentationTask.name)


def read_split(
    data: DataConfig, split: SplitConfig, key: str, tasks: Collection[str]
) -> Annotations:
    """The annotation of one split, as far as the tasks need it.

    Args:
        data: The data set.
        split: One of its splits.
        key: Of the split in the configuration, for messages.
        tasks: Names.
    """
    boxes, masks = DetectionTask.name in tasks, SegmentationTask.name in tasks
    return splits.read_split(data, split, key, boxes=boxes, masks=masks)


def labels_of(split: Annotations) -> dict[str, LabelMap]:
    """Labels of each task that the split is annotated for."""
    found = {DetectionTask.name: split.objects, SegmentationTask.name: split.masks}
    return {name: source.labels for name, source in found.items() if source is not None}


def with_labels(split: Annotations, labels: Mapping[str, LabelMap]) -> Annotations:
    """The split in other labels of each task, matched by name."""
    if DetectionTask.name in labels:
        split = split.with_labels(labels[DetectionTask.name])
    if SegmentationTask.name in labels:
        split = split.with_mask_labels(labels[SegmentationTask.name])
    return split
