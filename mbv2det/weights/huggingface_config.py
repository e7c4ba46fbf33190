"""config.json of transformers' MobileNetV2: the settings of the network, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mbv2det.errors import ConfigError
from mbv2det.weights.architecture import layer_channels
from mbv2det.weights.huggingface_json import Allowed, check_settings, is_number, read_json

CONFIG = "config.json"

_ALLOWED: Allowed = {
    "depth_multiplier": ("a number above 0", lambda v: is_number(v) and v > 0),
    "finegrained_output": ("true or false", lambda v: isinstance(v, bool)),
    "tf_padding": ("true or false", lambda v: isinstance(v, bool)),
    "layer_norm_eps": ("a number above 0", lambda v: is_number(v) and v > 0),
    "output_stride": ("8, 16 or 32", lambda v: isinstance(v, int) and v in (8, 16, 32)),
    "classifier_dropout_prob": ("from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1),
    "id2label": ("a name for each number", lambda v: isinstance(v, dict)),
}
# Settings that our network fixes; other settings of channels are checked by the tensors' shapes.
_FIXED = {
    "model_type": "mobilenet_v2",
    "num_channels": 3,
    "depth_divisible_by": 8,
    "expand_ratio": 6,
    "first_layer_is_expansion": True,
    "hidden_act": "relu6",
}


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of the network under transformers' names, with transformers' defaults.

    Attributes:
        depth_multiplier: Width multiplier.
        finegrained_output: Whether the last layer keeps at least 1280 channels.
        tf_padding: Whether convolutions pad as TensorFlow's SAME.
        layer_norm_eps: Epsilon of the backbone's batch norm.
        output_stride: Input pixels per cell of the last feature.
        classifier_dropout_prob: Dropout probability before the logits.
    """

    depth_multiplier: float = 1.0
    finegrained_output: bool = True
    tf_padding: bool = True
    layer_norm_eps: float = 1e-3
    output_stride: Literal[8, 16, 32] = 32
    classifier_dropout_prob: float = 0.8


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json.

    Raises:
        ConfigError: If it is missing, or has a setting that our network cannot have.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder}: expected {CONFIG} beside the weights, found none; to assume "
            "transformers' defaults, give the file of weights instead of the folder"
        )
    config = read_json(path)
    check_settings(path, config, _FIXED, _ALLOWED)
    return config


def network_settings(config: Mapping[str, Any], width_mult: float, source: str) -> NetworkSettings:
    """Returns the settings of the network in config.json, or their defaults.

    Args:
        config: Content of config.json.
        width_mult: Width multiplier inferred from the tensors' shapes.
        source: File or folder of the weights, for messages.

    Raises:
        ConfigError: If the width multiplier differs from that of the tensors.
    """
    names = [f.name for f in fields(NetworkSettings)]
    settings = NetworkSettings(**{name: config[name] for name in names if name in config})
    stored = settings.depth_multiplier
    if layer_channels(stored) != layer_channels(width_mult):
        raise ConfigError(
            f"{source}: {CONFIG}: depth_multiplier: expected {width_mult}, as the tensors' "
            f"shapes have, got {stored}"
        )
    return settings
