"""TensorFlow's MobileNets: classifier, Object Detection API's SSDLite, DeepLab.

From an `.npz` of variable names and arrays, as `tf.train.load_checkpoint` lists them, or from a
checkpoint itself where tensorflow is installed.

| there | here |
|---|---|
| kernels height, width, in, out; depthwise height, width, channels, 1 | out, in, height, width |
| padding SAME, batch norm epsilon 1e-3 (DeepLab's head 1e-5) | settings of the network |
| images in [-1, 1] | mean and standard deviation 0.5 |
| boxes as (ty, tx, th, tw) | (dx, dy, dw, dh): rows of the box predictors change places |
| sigmoid scores, slot 0 for background | `class_loss` sigmoid |
| 90 COCO ids, ten of them unused | COCO's 80 classes; the unused slots' rows are dropped |
| shadow variables of moving averages | in place of the variables they follow |
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

from mbv2det.backbones.mobilenet_v1 import MobileNetV1
from mbv2det.backbones.mobilenet_v2 import LAST_CHANNELS
from mbv2det.config import (
    BackboneConfig,
    DetectionHeadConfig,
    EvalConfig,
    HeadsConfig,
    ModelConfig,
    SegmentationHeadConfig,
)
from mbv2det.detection.anchors import AnchorSpec
from mbv2det.errors import ConfigError
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.files import WeightsInfo
from mbv2det.weights.foreign import Foreign
from mbv2det.weights.recognise import (
    CLASSIFIER,
    Place,
    classification,
    mobilenet_v2_width,
    num_outputs,
    width_of,
)
from mbv2det.weights.tensorflow_network import TensorFlowNetwork
from mbv2det.weights.tensorflow_variables import read_variables

_BACKBONE_EPS = 1e-3
_HEAD_EPS = 1e-5  # DeepLab's
_LEVELS = 6
_YXHW_AS_XYWH = (1, 0, 3, 2)
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_KINDS = ("conv", "norm")
_V1_LAYERS = ("Conv2d_0", *(f"Conv2d_{k}.pointwise" for k in range(1, 14)))
_V1_SCOPES = {
    f"backbone.layers.{module}": f"MobilenetV1/{module.replace('.', '_')}"
    for module in (*_V1_LAYERS, *(f"Conv2d_{k}.depthwise" for k in range(1, 14)))
}


def read_tensorflow(source: str) -> Foreign:
    """TensorFlow's variables, as our tensors still under their names.

    Args:
        source: An `.npz` file, or the prefix, index file or folder of a checkpoint.

    Raises:
        ConfigError: If it cannot be read or is none of the networks above.
    """
    variables, notes = read_variables(source)
    tensors = {name: _tensor(name, array) for name, array in variables.items()}
    if any(name.startswith("BoxPredictor_") for name in tensors):
        found = _ssdlite(source, tensors)
    elif "logits/semantic/weights" in tensors:
        found = _deeplab(source, tensors)
    else:
        found = _classifier(source, tensors)
    notes = [*notes, *found.notes]
    return replace(found, notes=notes, reference=_reference(found, variables))


def _reference(
    found: Foreign, variables: Mapping[str, np.ndarray]
) -> Callable[[Tensor], Tensor] | None:
    """The network in TensorFlow itself, where it is installed; not MobileNetV1, nor full ASPP."""
    model = found.info.model
    if find_spec("tensorflow") is None or model.backbone.name != "mobilenet_v2":
        return None
    network = TensorFlowNetwork(variables, found.name_of, _BACKBONE_EPS)
    if model.heads.detection is not None:
        slots = [0, *found.info.labels["detection"].ids]
        return partial(network.ssdlite, slots=slots)
    segmentation = model.heads.segmentation
    if segmentation is not None and segmentation.aspp == "pool":
        return partial(
            network.deeplab, output_stride=model.backbone.output_stride, norm_eps=_HEAD_EPS
        )
    return network.classifier if model.heads.classification is not None else None


def _tensor(name: str, array: Any) -> Tensor:
    """A variable in PyTorch's layout, in float32."""
    tensor = torch.from_numpy(np.array(array, np.float32))
    if tensor.ndim == 4:
        order = (2, 3, 0, 1) if name.endswith("depthwise_weights") else (3, 2, 0, 1)
        tensor = tensor.permute(order).contiguous()
    return tensor


def _classifier(source: str, tensors: dict[str, Tensor]) -> Foreign:
    """Slim's classifiers, or their backbones alone."""
    is_v1 = any(name.startswith("MobilenetV1/") for name in tensors)
    prefix = "MobilenetV1/" if is_v1 else "MobilenetV2/"
    head = f"{prefix}Logits/Conv2d_1c_1x1"
    scopes = {CLASSIFIER: head, **_V1_SCOPES}
    name_of = partial(_name, prefix=prefix, scopes=scopes)
    if is_v1:
        names = [name_of(f"backbone.layers.{layer}.conv.weight") for layer in _V1_LAYERS]
        width_mult = width_of(tensors, names, _v1_channels, "MobileNetV1", source)
        backbone = _backbone(width_mult, name="mobilenet_v1")
    else:
        backbone = _backbone(mobilenet_v2_width(tensors, name_of, source))
    weight = f"{head}/weights"
    count = num_outputs(tensors, weight, source) if weight in tensors else None
    heads, labels = classification(count)
    if count is not None and tensors[weight].ndim == 4:
        tensors[weight] = tensors[weight].flatten(1)
    info = WeightsInfo(ModelConfig(backbone, heads), PreprocessSpec((224, 224)), labels)
    return Foreign(source, tensors, info, name_of)


@cache
def _v1_channels(width_mult: float) -> tuple[int, ...]:
    with torch.device("meta"):
        specs = MobileNetV1(width_mult).feature_specs
    return tuple(spec.channels for spec in specs.values())


def _ssdlite(source: str, tensors: dict[str, Tensor]) -> Foreign:
    """The Object Detection API's detector."""
    prefix = "FeatureExtractor/MobilenetV2/"
    name_of = partial(_name, prefix=prefix, scopes=_ssdlite_scopes(prefix, tensors))
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    biases = "BoxPredictor_0/ClassPredictor/biases"
    if biases not in tensors:
        raise ConfigError(f"{source}: expected a tensor {biases!r}, got none")
    slots = num_outputs(tensors, biases, source) // AnchorSpec().per_cell(_LEVELS)[0]
    labels, kept, notes = _detection_labels(slots)
    for name, tensor in tensors.items():
        if re.fullmatch(r"BoxPredictor_\d/BoxEncodingPredictor/\w+", name):
            tensors[name] = _rows(tensor, 4, _YXHW_AS_XYWH)
        elif re.fullmatch(r"BoxPredictor_\d/ClassPredictor/\w+", name):
            tensors[name] = _rows(tensor, slots, kept)
    last = tensors.get(f"{prefix}Conv_1/weights")
    scaled = width_mult < 1 and last is not None and last.shape[0] < LAST_CHANNELS
    head = DetectionHeadConfig(class_loss="sigmoid", norm_eps=_BACKBONE_EPS)
    info = WeightsInfo(
        model=ModelConfig(_backbone(width_mult, scale_last_layer=scaled), HeadsConfig(head)),
        preprocess=PreprocessSpec((300, 300)),
        labels={"detection": labels},
        eval=EvalConfig(score_threshold=0.01, nms_iou=0.6, max_detections=100),
    )
    return Foreign(source, tensors, info, name_of, notes)


def _ssdlite_scopes(prefix: str, tensors: Iterable[str]) -> dict[str, str]:
    """Scopes of the detection head's modules. Those of the extra levels end in their depth."""
    ours = "heads.detection"
    all_scopes = {name.rpartition("/")[0].removesuffix("/BatchNorm") for name in tensors}
    scopes = {}
    for level in range(_LEVELS):
        for kind, theirs in (("class", "ClassPredictor"), ("box", "BoxEncodingPredictor")):
            scope = f"BoxPredictor_{level}/{theirs}"
            scopes[f"{ours}.{kind}_predictors.{level}.0"] = f"{scope}_depthwise"
            scopes[f"{ours}.{kind}_predictors.{level}.1"] = scope
    for extra in range(_LEVELS - 2):
        place = f"{prefix}layer_19_{{}}_Conv2d_{extra + 2}_"
        for position, scope in enumerate(
            (place.format(1) + "1x1", place.format(2) + "3x3_s2", place.format(2) + "3x3_s2")
        ):
            end = "_depthwise" if position == 1 else ""
            wanted = re.compile(re.escape(scope) + r"_\d+" + end)
            found = [name for name in all_scopes if wanted.fullmatch(name)]
            scopes[f"{ours}.extras.{extra}.{position}"] = min(found, default=f"{scope}_N{end}")
    return scopes


def _detection_labels(slots: int) -> tuple[LabelMap, tuple[int, ...], list[str]]:
    """The classes behind a detector's slots, the slots that have one, and notes.

    COCO's detectors have a slot for each id up to 90, of which ten stand for nothing.
    """
    coco = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
    if slots == len(coco):
        ids = [i for i, name in enumerate(coco) if i > 0 and name != "N/A"]
        labels = LabelMap(tuple(coco[i] for i in ids), tuple(ids))
        return labels, (0, *ids), [f"left out the slots of {slots - 1 - len(ids)} unused COCO ids"]
    if slots == len(VOC_NAMES) + 1:
        return LabelMap(VOC_NAMES, tuple(range(1, slots))), tuple(range(slots)), []
    names = tuple(f"class {label}" for label in range(1, slots))
    return LabelMap(names, tuple(range(1, slots))), tuple(range(slots)), []


def _rows(tensor: Tensor, per_anchor: int, kept: Sequence[int]) -> Tensor:
    """Some of each anchor's outputs of a predictor, in the order given.

    A tensor of another shape is left as it is, to be named with all that do not fit.
    """
    if tensor.ndim == 0 or len(tensor) % per_anchor:
        return tensor
    by_anchor = tensor.unflatten(0, (-1, per_anchor))
    return by_anchor[:, list(kept)].flatten(0, 1)


def _deeplab(source: str, tensors: dict[str, Tensor]) -> Foreign:
    """DeepLab's segmenter."""
    name_of = partial(_name, prefix="MobilenetV2/", scopes=_DEEPLAB_SCOPES)
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    aspp: Literal["pool", "full", "separable"] = "pool"
    if "aspp1/weights" in tensors:
        aspp = "full"
    elif "aspp1_pointwise/weights" in tensors:
        aspp = "separable"
    count = len(tensors["logits/semantic/weights"])
    names = with_background(VOC_NAMES)
    if count != len(names):
        names = tuple(f"class {label}" for label in range(count))
    info = WeightsInfo(
        model=ModelConfig(
            _backbone(width_mult, output_stride=16),
            HeadsConfig(segmentation=SegmentationHeadConfig(aspp=aspp, norm_eps=_HEAD_EPS)),
        ),
        preprocess=PreprocessSpec((513, 513), "fit"),
        labels={"segmentation": LabelMap.of_masks(names)},
    )
    return Foreign(source, tensors, info, name_of)


_DEEPLAB_SCOPES = {
    "heads.segmentation.aspp.pool": "image_pooling",
    "heads.segmentation.aspp.pointwise": "aspp0",
    "heads.segmentation.aspp.project": "concat_projection",
    "heads.segmentation.classifier": "logits/semantic",
    **{f"heads.segmentation.aspp.atrous.{i}": f"aspp{i + 1}" for i in range(3)},
    **{f"heads.segmentation.aspp.atrous.{i}.0": f"aspp{i + 1}_depthwise" for i in range(3)},
    **{f"heads.segmentation.aspp.atrous.{i}.1": f"aspp{i + 1}_pointwise" for i in range(3)},
}


def _backbone(width_mult: float, **settings: Any) -> BackboneConfig:
    return BackboneConfig(width_mult=width_mult, padding="same", norm_eps=_BACKBONE_EPS, **settings)


def _name(ours: str, *, prefix: str, scopes: Mapping[str, str]) -> str:
    """Its name of a tensor of ours.

    Args:
        ours: Tensor of the network.
        prefix: Scope of the backbone.
        scopes: Of the heads' modules, by ours.
    """
    place = Place.of(ours)
    if place is not None:
        scope, kind, tensor = prefix + _layer_scope(place), place.kind, place.tensor
        depthwise = place.part == "depthwise"
    else:
        module, _, tensor = ours.rpartition(".")
        kind = module.rpartition(".")[2]
        scope = scopes.get(module.removesuffix(f".{kind}") if kind in _KINDS else module, module)
        depthwise = scope.endswith("_depthwise")
    if kind == "norm":
        return f"{scope}/BatchNorm/{_NORM.get(tensor, tensor)}"
    if tensor == "bias":
        return f"{scope}/biases"
    return f"{scope}/depthwise_weights" if depthwise else f"{scope}/weights"


def _layer_scope(place: Place) -> str:
    if not place.part:
        return "Conv" if place.layer == 1 else "Conv_1"
    block = "expanded_conv" if place.layer == 2 else f"expanded_conv_{place.layer - 2}"
    return f"{block}/{place.part}"
