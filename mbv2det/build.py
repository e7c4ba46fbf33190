"""From the configuration to objects: the only file that sees both."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.classifier import Classifier
from mbv2det.backbones.feature import Feature, HeadFeatures
from mbv2det.backbones.mobilenet_v1 import MobileNetV1
from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.backbones.resnet import ResNet50, ResNet101
from mbv2det.config import (
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
from mbv2det.detection.loss import SSDLoss, focal_loss, sigmoid_loss, softmax_loss
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.heads import deeplab_v3, lraspp
from mbv2det.heads.deeplab_v3 import DeepLabV3
from mbv2det.heads.lraspp import LRASPP
from mbv2det.heads.ssdlite import SSDLite
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor, Normalize
from mbv2det.preprocess import PreprocessSpec
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.multi_scale_flip import MultiScaleFlip
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.tasks import (
    ClassificationTask,
    DetectionTask,
    PredictingTask,
    SegmentationTask,
    Task,
)
from mbv2det.weights.share_file import WeightsInfo

# Score that a sigmoid's logits start at (focal loss paper, section 5.1).
_FOCAL_PRIOR = 0.01


def build_preprocess(data: DataConfig) -> PreprocessSpec:
    """The preprocessing at the configured size, for weights that start from scratch."""
    return PreprocessSpec(data.size, data.resize)


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


def shapes_of(info: WeightsInfo) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of the network that a header describes."""
    with torch.device("meta"):
        model = build_model(info.model, info.preprocess, info.label_maps)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def build_backbone(
    config: ModelConfig,
    num_classes: int | None = None,
    out_features: Sequence[Feature] | None = None,
) -> Backbone:
    """The backbone with the features that the heads read.

    Args:
        config: Architecture.
        num_classes: Of a classifier of the backbone's own; None for none.
        out_features: Instead of those that the heads read.
    """
    backbone = config.backbone
    kind = _BACKBONES[backbone.name]
    return kind(
        output_stride=backbone.output_stride,
        num_classes=num_classes,
        out_features=out_features or _input_features(config.heads, kind.head_features),
        norm_eps=backbone.norm_eps,
        norm_momentum=backbone.norm_momentum,
        **backbone.own,
    )


_BACKBONES: dict[str, Any] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v1": MobileNetV1,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
}


def _input_features(heads: HeadsConfig, head_features: HeadFeatures) -> tuple[Feature, ...]:
    """Returns the features that the heads read, each once."""
    features = list(head_features.detection) if heads.detection else []
    if heads.segmentation and heads.segmentation.name == "lraspp":
        features += lraspp.input_features(head_features)
    elif heads.segmentation:
        auxiliary = heads.segmentation.auxiliary_weight > 0
        decoder = heads.segmentation.decoder
        features += deeplab_v3.input_features(head_features, decoder, auxiliary)
    if heads.classification or not features:
        features.append(head_features.classification)
    return tuple(dict.fromkeys(features))


def _detection_head(config: ModelConfig, backbone: Backbone, labels: LabelMap) -> nn.Module:
    head = config.heads.detection
    assert head is not None
    return SSDLite(
        backbone.feature_specs,
        _class_slots(head, labels),
        head_features=backbone.head_features,
        anchors=AnchorSpec(head.min_scale, head.max_scale),
        lite=head.name == "ssdlite",
        width_mult=config.backbone.width_mult,
        padding=backbone.padding,
        norm_eps=head.norm_eps,
        norm_momentum=head.norm_momentum,
        prior=None if head.class_loss == "softmax" else _FOCAL_PRIOR,
    )


def _segmentation_head(config: ModelConfig, backbone: Backbone, labels: LabelMap) -> nn.Module:
    head = config.heads.segmentation
    assert head is not None
    shared: dict[str, Any] = {
        "head_features": backbone.head_features,
        "padding": backbone.padding,
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


def _classification_head(config: ModelConfig, backbone: Backbone, labels: LabelMap) -> nn.Module:
    head = config.heads.classification
    assert head is not None
    return Classifier(
        backbone.feature_specs,
        len(labels),
        head_features=backbone.head_features,
        dropout=head.dropout,
    )


_HEADS = {
    DetectionTask.name: _detection_head,
    SegmentationTask.name: _segmentation_head,
    ClassificationTask.name: _classification_head,
}


def _class_slots(head: DetectionHeadConfig, labels: LabelMap) -> ClassSlots:
    activation: Literal["softmax", "sigmoid"]
    activation = "softmax" if head.class_loss == "softmax" else "sigmoid"
    return ClassSlots(len(labels), activation, background=head.has_background)


def build_tasks(
    config: ModelConfig, thresholds: EvalConfig, labels: Mapping[str, LabelMap]
) -> list[Task]:
    """One task for each head that data sets train and measure."""
    wanted = [name for name in config.heads.tasks if name in _TASKS]
    return [_TASKS[name](config.heads, thresholds, labels[name]) for name in wanted]


def build_predicting_tasks(
    config: ModelConfig, thresholds: EvalConfig, labels: Mapping[str, LabelMap]
) -> list[PredictingTask]:
    """One task for each head."""
    tasks: list[PredictingTask] = [*build_tasks(config, thresholds, labels)]
    return [*tasks, ClassificationTask()] if config.heads.classification else tasks


_CLASS_LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss, "focal": focal_loss}


def _detection_task(heads: HeadsConfig, thresholds: EvalConfig, labels: LabelMap) -> Task:
    head = heads.detection
    assert head is not None
    postprocess = SSDPostprocess(
        _class_slots(head, labels),
        score_threshold=thresholds.score_threshold,
        nms_iou=thresholds.nms_iou,
        max_detections=thresholds.max_detections,
    )
    loss = SSDLoss(_CLASS_LOSSES[head.class_loss], box_weight=head.box_weight)
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
    return MultiScaleFlip(model, thresholds.scales, thresholds.flip, task=SegmentationTask.name)


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
    return {name: source.label_map for name, source in found.items() if source is not None}


def with_labels(split: Annotations, labels: Mapping[str, LabelMap]) -> Annotations:
    """The split in other labels of each task, matched by name."""
    if DetectionTask.name in labels:
        split = split.with_label_map(labels[DetectionTask.name])
    if SegmentationTask.name in labels:
        split = split.with_mask_label_map(labels[SegmentationTask.name])
    return split
