"""Importer of TensorFlow's MobileNets: classifiers, Object Detection API's SSDLite, DeepLab.

The source is an `.npz` file of arrays by variable name, as `tf.train.load_checkpoint` lists them,
or a checkpoint if tensorflow is installed.

| TensorFlow | here |
|---|---|
| kernels height, width, in, out; depthwise height, width, channels, 1 | out, in, height, width |
| padding SAME, batch norm epsilon 1e-3 (DeepLab's head 1e-5) | settings of the network |
| images in [-1, 1] | mean and standard deviation 0.5 |
| box deltas (ty, tx, th, tw) | (dx, dy, dw, dh): the box predictors' rows are reordered |
| sigmoid scores, slot 0 for background | `class_loss` sigmoid |
| a slot for each of 90 COCO ids, ten of them unused | COCO's 80 classes; unused slots are dropped |
| moving averages of variables | used in place of the variables |
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

from mbv2det.backbones.mobilenet_v1 import MobileNetV1
from mbv2det.backbones.mobilenet_v2 import LAST_CHANNELS
from mbv2det.detection.anchors import AnchorSpec
from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.tasks import DetectionTask, SegmentationTask
from mbv2det.weights.architecture import (
    CLASSIFIER,
    class_names,
    classification_head,
    mobilenet_v2_width,
    num_outputs,
    width_of,
)
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.tensorflow_names import (
    DEEPLAB_SCOPES,
    MOBILENET_V1_LAYERS,
    MOBILENET_V1_SCOPES,
    SSDLITE_LEVELS,
    ssdlite_scopes,
    tf_name,
)
from mbv2det.weights.tensorflow_variables import read_variables

_BACKBONE_EPS = 1e-3  # and SSDLite's
_DEEPLAB_EPS = 1e-5
_YXHW_AS_XYWH = (1, 0, 3, 2)


def read_tensorflow(source: str) -> WeightsSource:
    """Reads TensorFlow's variables, in PyTorch's layout and under TensorFlow's names.

    Args:
        source: As for `read_variables`.

    Raises:
        ConfigError: If the source cannot be read, or is none of these networks.
    """
    variables, notes = read_variables(source)
    tensors = {name: _tensor(name, array) for name, array in variables.items()}
    if any(name.startswith("BoxPredictor_") for name in tensors):
        weights = _ssdlite(source, tensors)
    elif "logits/semantic/weights" in tensors:
        weights = _deeplab(source, tensors)
    else:
        weights = _classifier(source, tensors)
    return replace(weights, notes=[*notes, *weights.notes])


def _tensor(name: str, array: Any) -> Tensor:
    """Converts a variable to PyTorch's layout and float32."""
    tensor = torch.from_numpy(np.array(array, np.float32))
    if tensor.ndim == 4:
        order = (2, 3, 0, 1) if name.endswith("depthwise_weights") else (3, 2, 0, 1)
        tensor = tensor.permute(order).contiguous()
    return tensor


def _classifier(source: str, tensors: dict[str, Tensor]) -> WeightsSource:
    """Returns slim's MobileNetV1 or V2, with its classifier or without."""
    is_v1 = any(name.startswith("MobilenetV1/") for name in tensors)
    prefix = "MobilenetV1/" if is_v1 else "MobilenetV2/"
    head = f"{prefix}Logits/Conv2d_1c_1x1"
    name_of = partial(tf_name, prefix=prefix, scopes={CLASSIFIER: head, **MOBILENET_V1_SCOPES})
    if is_v1:
        names = [name_of(f"backbone.layers.{layer}.conv.weight") for layer in MOBILENET_V1_LAYERS]
        width_mult = width_of(tensors, names, _v1_channels, "MobileNetV1", source)
        backbone = _backbone(width_mult, name="mobilenet_v1")
    else:
        backbone = _backbone(mobilenet_v2_width(tensors, name_of, source))
    weight = f"{head}/weights"
    num_classes = num_outputs(tensors, weight, source) if weight in tensors else None
    heads, label_maps = classification_head(num_classes)
    if num_classes is not None and tensors[weight].ndim == 4:  # a 1x1 convolution in TensorFlow
        tensors[weight] = tensors[weight].flatten(1)
    info = WeightsInfo(ModelConfig(backbone, heads), PreprocessSpec((224, 224)), label_maps)
    return WeightsSource(source, tensors, info, name_of)


@cache
def _v1_channels(width_mult: float) -> tuple[int, ...]:
    """Returns the output channels of `MOBILENET_V1_LAYERS`."""
    with torch.device("meta"):
        specs = MobileNetV1(width_mult).feature_specs
    return tuple(spec.channels for spec in specs.values())


def _ssdlite(source: str, tensors: dict[str, Tensor]) -> WeightsSource:
    """Returns the Object Detection API's SSDLite."""
    prefix = "FeatureExtractor/MobilenetV2/"
    name_of = partial(tf_name, prefix=prefix, scopes=ssdlite_scopes(prefix, tensors))
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    biases = "BoxPredictor_0/ClassPredictor/biases"
    if biases not in tensors:
        raise ConfigError(f"{source}: expected a tensor {biases!r}, got none")
    num_slots = num_outputs(tensors, biases, source) // AnchorSpec().per_cell(SSDLITE_LEVELS)[0]
    label_map, used_slots, notes = _detection_classes(num_slots)
    for name, tensor in tensors.items():
        if re.fullmatch(r"BoxPredictor_\d/BoxEncodingPredictor/\w+", name):
            tensors[name] = _rows_per_anchor(tensor, 4, _YXHW_AS_XYWH)
        elif re.fullmatch(r"BoxPredictor_\d/ClassPredictor/\w+", name):
            tensors[name] = _rows_per_anchor(tensor, num_slots, used_slots)
    last = tensors.get(f"{prefix}Conv_1/weights")
    is_scaled = width_mult < 1 and last is not None and last.shape[0] < LAST_CHANNELS
    head = SSDLiteConfig(class_loss="sigmoid", norm_eps=_BACKBONE_EPS)
    info = WeightsInfo(
        model=ModelConfig(
            _backbone(width_mult, scale_last_layer=is_scaled), {DetectionTask.name: head}
        ),
        preprocess=PreprocessSpec((300, 300)),
        label_maps={DetectionTask.name: label_map},
        eval=EvalConfig(score_threshold=0.01, nms_iou=0.6, max_detections=100),
    )
    return WeightsSource(source, tensors, info, name_of, notes)


def _detection_classes(num_slots: int) -> tuple[LabelMap, tuple[int, ...], list[str]]:
    """Returns a detector's label map, the class slots in use (0 is background), and notes.

    COCO's detectors have a slot for each id up to 90, ten of which are unused. Detectors with as
    many classes as VOC get VOC's names, all others "class 1", "class 2", ...
    """
    coco = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
    if num_slots == len(coco):
        ids = [i for i, name in enumerate(coco) if i > 0 and name != "N/A"]
        label_map = LabelMap(tuple(coco[i] for i in ids), tuple(ids))
        num_unused = num_slots - 1 - len(ids)
        return label_map, (0, *ids), [f"left out the slots of {num_unused} unused COCO ids"]
    num_classes = num_slots - 1
    names = VOC_NAMES if num_classes == len(VOC_NAMES) else class_names(num_classes, first=1)
    return LabelMap(tuple(names), tuple(range(1, num_slots))), tuple(range(num_slots)), []


def _rows_per_anchor(tensor: Tensor, per_anchor: int, rows: Sequence[int]) -> Tensor:
    """Selects rows of a predictor's weight or bias, the same at each anchor.

    A tensor whose number of rows is not a multiple of `per_anchor` is returned unchanged: the
    renaming reports it together with other mismatches.

    Args:
        tensor: Weight or bias with `per_anchor` rows for each anchor.
        per_anchor: Number of outputs of an anchor.
        rows: Rows of an anchor to select, in the order of the result.
    """
    if tensor.ndim == 0 or len(tensor) % per_anchor:
        return tensor
    by_anchor = tensor.unflatten(0, (-1, per_anchor))
    return by_anchor[:, list(rows)].flatten(0, 1)


def _deeplab(source: str, tensors: dict[str, Tensor]) -> WeightsSource:
    """Returns DeepLab on MobileNetV2."""
    name_of = partial(tf_name, prefix="MobilenetV2/", scopes=DEEPLAB_SCOPES)
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    aspp: Literal["pool", "full", "separable"] = "pool"
    if "aspp1/weights" in tensors:
        aspp = "full"
    elif "aspp1_pointwise/weights" in tensors:
        aspp = "separable"
    num_classes = len(tensors["logits/semantic/weights"])
    names: Sequence[str] = with_background(VOC_NAMES)
    if num_classes != len(names):
        names = class_names(num_classes)
    info = WeightsInfo(
        model=ModelConfig(
            _backbone(width_mult, output_stride=16),
            {SegmentationTask.name: DeepLabV3Config(aspp=aspp, norm_eps=_DEEPLAB_EPS)},
        ),
        preprocess=PreprocessSpec((513, 513), "fit"),
        label_maps={SegmentationTask.name: LabelMap.of_masks(names)},
    )
    return WeightsSource(source, tensors, info, name_of)


def _backbone(width_mult: float, **settings: Any) -> BackboneConfig:
    return BackboneConfig(width_mult=width_mult, padding="same", norm_eps=_BACKBONE_EPS, **settings)
