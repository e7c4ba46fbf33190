"""Importer of timm's MobileNetV2: state dicts, or weights by the model's name."""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbv2det.errors import ConfigError
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.architecture import (
    CLASSIFIER,
    TensorPath,
    classification_head,
    mobilenet_v2_width,
    num_outputs,
)
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.state_dict import read_state_dict

_SIZE = (224, 224)
_NOTE = (  # its crop_pct is 0.875
    "preprocessing: the whole image is stretched to 224 x 224, bilinearly; timm scales the shorter "
    "side to 256, bicubically, and cuts out the middle"
)
_CLASSIFIER = "classifier"
_NAMES = {
    0.35: "mobilenetv2_035",
    0.5: "mobilenetv2_050",
    0.75: "mobilenetv2_075",
    1.0: "mobilenetv2_100",
    1.4: "mobilenetv2_140",
}
_DEEPER_NAMES = ("mobilenetv2_110d", "mobilenetv2_120d")
# (stage, index in the stage) of each block, from our layer 2 on.
_BLOCKS = tuple(
    (stage, index)
    for stage, num_blocks in enumerate((1, 2, 3, 4, 3, 3, 1))
    for index in range(num_blocks)
)
# Convolution and norm of the layers outside the blocks, by our layer number.
_SINGLE_LAYERS = {1: ("conv_stem", "bn1"), 19: ("conv_head", "bn2")}
# Convolution and norm of each part of a block. The first block has no expansion: it is timm's
# depthwise separable convolution, whose projection has another name.
_FIRST_BLOCK = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
_BLOCK = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
}


def read_timm(source: str) -> WeightsSource:
    """Reads timm's weights from a file of a state dict, or by name.

    Args:
        source: A file, or a name such as `mobilenetv2_100.ra_in1k`, whose weights are downloaded.

    Raises:
        ConfigError: If there is no such file or name, or if it is not MobileNetV2.
    """
    path = Path(source)
    tensors = read_state_dict(path) if path.exists() else _download(source)
    if any(name.startswith("blocks.1.2.") for name in tensors):
        raise _deeper_error(source)
    width_mult = mobilenet_v2_width(tensors, timm_name, source)
    weight = f"{_CLASSIFIER}.weight"
    num_classes = num_outputs(tensors, weight, source) if weight in tensors else None
    heads, label_maps = classification_head(num_classes)
    info = WeightsInfo(
        model=ModelConfig(BackboneConfig(width_mult=width_mult), heads),
        preprocess=PreprocessSpec(_SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        label_maps=label_maps,
    )
    can_run = find_spec("timm") is not None and width_mult in _NAMES
    reference = partial(_run, tensors, _NAMES[width_mult]) if can_run else None
    return WeightsSource(source, tensors, info, timm_name, [_NOTE], reference)


def timm_name(name: str) -> str:
    """Returns timm's name of a tensor of our network."""
    path = TensorPath.of(name)
    if path is None:
        return name.replace(CLASSIFIER, _CLASSIFIER)
    if path.layer in _SINGLE_LAYERS:
        conv, norm = _SINGLE_LAYERS[path.layer]
        return f"{conv if path.kind == 'conv' else norm}.{path.tensor}"
    stage, index = _BLOCKS[path.layer - 2]
    conv, norm = (_BLOCK if path.layer > 2 else _FIRST_BLOCK)[path.part]
    return f"blocks.{stage}.{index}.{conv if path.kind == 'conv' else norm}.{path.tensor}"


def _run(state: Mapping[str, Tensor], name: str, images: Tensor) -> Tensor:
    """Runs timm's own network on normalised images."""
    import timm

    weight = state.get(f"{_CLASSIFIER}.weight", torch.empty(0))
    network: Any = timm.create_model(name, num_classes=len(weight)).eval()
    network.load_state_dict(state)
    return network(images) if len(weight) else network.forward_features(images)


def _download(name: str) -> dict[str, Tensor]:
    """Returns the state dict of named weights, from timm's cache or the network.

    Raises:
        ConfigError: If there is no such name, timm is not installed, or it cannot be downloaded.
    """
    architecture = name.partition(".")[0]
    if architecture in _DEEPER_NAMES:
        raise _deeper_error(name)
    if architecture not in _NAMES.values():
        raise ConfigError(
            f"SOURCE: expected a file of a state dict, or {', '.join(_NAMES.values())}, got {name}"
        )
    try:
        import timm
    except ImportError:
        raise ConfigError(
            f"SOURCE: {name}: downloading it needs timm, which is not installed: pip install "
            "timm, or give a file"
        ) from None
    available = timm.list_models("mobilenetv2_*", pretrained=True)
    if not any(name in (full, full.partition(".")[0]) for full in available):
        shown = [full for full in available if full.partition(".")[0] not in _DEEPER_NAMES]
        raise ConfigError(
            f"SOURCE: expected weights that timm has ({', '.join(shown)}), got {name}"
        )
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"SOURCE: {name}: cannot be downloaded ({reason}); download it elsewhere and give the "
            "file"
        ) from None


def _deeper_error(source: str) -> ConfigError:
    return ConfigError(
        f"SOURCE: {source}: expected MobileNetV2, got a network with more blocks per stage, as "
        f"{' and '.join(_DEEPER_NAMES)}, which this toolkit does not build"
    )
