"""Networks, tasks and data, built from a configuration.

`train`, `eval` and `load` all use these functions.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature
from mbv2det.backbones.mobilenet_v1 import MobileNetV1
from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.backbones.resnet import ResNet50, ResNet101
from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data import splits
from mbv2det.data.annotations import Annotations
from mbv2det.data.formats import FORMATS
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel, Normalize
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.tasks import TASKS, Task, TrainableTask, trainable_task
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.source import WeightsSource

_BACKBONES: dict[str, Any] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v1": MobileNetV1,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
}


def build(info: WeightsInfo) -> tuple[MultiTaskModel, list[Task]]:
    """Builds the network with initial weights, and its tasks.

    Args:
        info: Architecture, preprocessing, classes and thresholds.
    """
    model = build_model(info.model, info.preprocess, info.label_maps)
    return model, build_tasks(info.model, info.eval, info.label_maps)


def build_model(
    config: ModelConfig, preprocess: PreprocessSpec, label_maps: Mapping[str, LabelMap]
) -> MultiTaskModel:
    """Builds the network with initial weights, in the memory layout fastest for convolutions.

    Args:
        config: Architecture.
        preprocess: Preprocessing of the images; the first layer normalises with its mean and std.
        label_maps: Classes of each task.
    """
    available = _BACKBONES[config.backbone.name].head_features
    features = [feature for head in config.heads.values() for feature in head.features(available)]
    backbone = build_backbone(
        config.backbone, out_features=tuple(dict.fromkeys(features)) or (available.last,)
    )
    heads = {
        task: head.build(backbone, config.backbone.width_mult, label_maps[task])
        for task, head in config.heads.items()
    }
    model = MultiTaskModel(Normalize(preprocess.mean, preprocess.std), backbone, heads)
    return model.to(memory_format=torch.channels_last)


def build_backbone(
    config: BackboneConfig,
    num_classes: int | None = None,
    out_features: Sequence[Feature] | None = None,
) -> Backbone:
    """Builds a backbone with initial weights.

    Args:
        config: Architecture.
        num_classes: Number of classes of the backbone's own classifier; None for no classifier.
        out_features: Features to return; the last one by default.
    """
    backbone_class = _BACKBONES[config.name]
    return backbone_class(
        output_stride=config.output_stride,
        num_classes=num_classes,
        out_features=out_features or (backbone_class.head_features.last,),
        norm_eps=config.norm_eps,
        norm_momentum=config.norm_momentum,
        **config.options,
    )


def build_tasks(
    config: ModelConfig, thresholds: EvalConfig, label_maps: Mapping[str, LabelMap]
) -> list[Task]:
    """Builds the task of each head.

    Args:
        config: Settings of the heads.
        thresholds: Settings of the postprocessing.
        label_maps: Classes of each task.
    """
    return [TASKS[name](head, label_maps[name], thresholds) for name, head in config.heads.items()]


def trainable(tasks: Sequence[Task]) -> list[TrainableTask]:
    """Returns the tasks that can be trained and measured on a data set."""
    return [task for task in tasks if isinstance(task, TrainableTask)]


def evaluation_model(model: nn.Module, tasks: Sequence[Task], thresholds: EvalConfig) -> nn.Module:
    """Returns the model for evaluation: with augmentation at test time, if configured."""
    for task in tasks:
        model = task.evaluation_model(model, thresholds)
    return model


def load_network(source: WeightsSource) -> tuple[MultiTaskModel, list[Task]]:
    """Builds the network of some weights, loads them, and builds its tasks.

    Raises:
        MismatchError: If a tensor is missing, unknown or of another shape.
    """
    model, tasks = build(source.info)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(source.renamed(shapes))
    return model, tasks


def tensor_shapes(info: WeightsInfo) -> dict[str, torch.Size]:
    """Returns the shapes of the tensors of the network that a header describes, by name."""
    with torch.device("meta"):
        model, _ = build(info)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def build_preprocess(data: DataConfig) -> PreprocessSpec:
    """Returns the configured preprocessing, for a network that is trained from scratch."""
    return PreprocessSpec(data.size, data.resize)


def read_split(
    data: DataConfig,
    split: SplitConfig,
    key: str,
    tasks: Collection[str],
    *,
    outlines: bool = False,
) -> Annotations:
    """Reads the annotations of one split that the tasks need.

    Args:
        data: Settings of the data set.
        split: Settings of the split.
        key: Name of the split's section in the configuration, for messages.
        tasks: Names of the tasks.
        outlines: Whether to read outlines even if no task needs masks, in formats that have them.
    """
    needed = annotation_of(tasks)
    boxes, masks = "boxes" in needed, "masks" in needed
    extra = outlines and not masks and FORMATS[data.format].draws_masks
    annotations = splits.read_split(data, split, key, boxes=boxes, masks=masks or extra)
    if not extra:
        return annotations
    return replace(annotations, masks=None, outlines=annotations.masks)


def annotation_of(tasks: Collection[str]) -> list[str]:
    """Returns what tasks need data to be annotated with: boxes, masks or both."""
    return sorted({trainable_task(name).annotation for name in tasks})


def label_maps_of(split: Annotations, tasks: Collection[str]) -> dict[str, LabelMap]:
    """Returns the classes that a split is annotated with, by task."""
    label_maps = {name: trainable_task(name).labels_in(split) for name in tasks}
    return {name: label_map for name, label_map in label_maps.items() if label_map is not None}


def relabel(split: Annotations, label_maps: Mapping[str, LabelMap]) -> Annotations:
    """Returns a split in the labels of other maps, matched by name.

    Args:
        split: Annotations of the split.
        label_maps: Classes of each task.
    """
    for name, label_map in label_maps.items():
        split = trainable_task(name).relabel(split, label_map)
    return split
