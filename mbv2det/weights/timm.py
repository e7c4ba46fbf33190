"""timm's MobileNetV2: state dicts, and its weights by the model's name."""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbv2det.config import BackboneConfig, ModelConfig
from mbv2det.errors import ConfigError
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.files import WeightsInfo, read_state_dict
from mbv2det.weights.foreign import Foreign
from mbv2det.weights.recognise import (
    CLASSIFIER,
    Place,
    classification,
    mobilenet_v2_width,
    num_outputs,
)

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
_DEEPER = ("mobilenetv2_110d", "mobilenetv2_120d")
# Stage and repeat of the blocks, which begin with our layer 2.
_BLOCKS = tuple(
    (stage, repeat)
    for stage, repeats in enumerate((1, 2, 3, 4, 3, 3, 1))
    for repeat in range(repeats)
)
_ENDS = {1: ("conv_stem", "bn1"), 19: ("conv_head", "bn2")}
# Convolution and norm of a block's parts. The first block, without expansion, is timm's depthwise
# separable convolution, whose last part has another name.
_FIRST_BLOCK = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
_BLOCK = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
}


def read_timm(source: str) -> Foreign:
    """Timm's weights, from a file of a state dict or by name.

    Args:
        source: A file, or a name such as `mobilenetv2_100.ra_in1k`, which is downloaded.

    Raises:
        ConfigError: If there is no such file or name, or it is not MobileNetV2.
    """
    path = Path(source)
    tensors = read_state_dict(path) if path.exists() else _download(source)
    if any(name.startswith("blocks.1.2.") for name in tensors):
        raise _deeper(source)
    width_mult = mobilenet_v2_width(tensors, timm_name, source)
    weight = f"{_CLASSIFIER}.weight"
    heads, labels = classification(
        num_outputs(tensors, weight, source) if weight in tensors else None
    )
    info = WeightsInfo(
        model=ModelConfig(BackboneConfig(width_mult=width_mult), heads),
        preprocess=PreprocessSpec(_SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        labels=labels,
    )
    runs = find_spec("timm") is not None and width_mult in _NAMES
    reference = partial(_run, tensors, _NAMES[width_mult]) if runs else None
    return Foreign(source, tensors, info, timm_name, [_NOTE], reference)


def timm_name(ours: str) -> str:
    """Its name of a tensor of ours."""
    place = Place.of(ours)
    if place is None:
        return ours.replace(CLASSIFIER, _CLASSIFIER)
    if place.layer in _ENDS:
        conv, norm = _ENDS[place.layer]
        return f"{conv if place.kind == 'conv' else norm}.{place.tensor}"
    stage, repeat = _BLOCKS[place.layer - 2]
    conv, norm = (_BLOCK if place.layer > 2 else _FIRST_BLOCK)[place.part]
    return f"blocks.{stage}.{repeat}.{conv if place.kind == 'conv' else norm}.{place.tensor}"


def _run(state: Mapping[str, Tensor], name: str, images: Tensor) -> Tensor:
    """Timm's own network on normalised images."""
    import timm

    weight = state.get(f"{_CLASSIFIER}.weight", torch.empty(0))
    network: Any = timm.create_model(name, num_classes=len(weight)).eval()
    network.load_state_dict(state)
    return network(images) if len(weight) else network.forward_features(images)


def _download(name: str) -> dict[str, Tensor]:
    """The state dict behind a name, from timm's cache or the network.

    Raises:
        ConfigError: If there is no such name, no timm or no network.
    """
    architecture = name.partition(".")[0]
    if architecture in _DEEPER:
        raise _deeper(name)
    if architecture not in _NAMES.values():
        raise ConfigError(
            f"SOURCE: expected a file of a state dict, or {', '.join(_NAMES.values())}, got {name}"
        )
    try:
        import timm
    except ImportError:
        raise ConfigError(
            f"SOURCE: {name}: expected timm to download it with, found none: pip install timm, or "
            "give a file"
        ) from None
    known = timm.list_models("mobilenetv2_*", pretrained=True)
    if not any(name in (full, full.partition(".")[0]) for full in known):
        own = ", ".join(full for full in known if full.partition(".")[0] not in _DEEPER)
        raise ConfigError(f"SOURCE: expected weights that timm has ({own}), got {name}")
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"SOURCE: {name}: cannot be downloaded ({reason}); download it elsewhere and give the "
            "file"
        ) from None


def _deeper(source: str) -> ConfigError:
    return ConfigError(
        f"SOURCE: {source}: expected the depth of MobileNetV2, got more blocks a stage, as "
        f"{' and '.join(_DEEPER)} have: another network, which this toolkit does not build"
    )
