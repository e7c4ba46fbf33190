"""config.json and preprocessor_config.json of transformers' MobileNetV2, checked."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mbv2det.errors import ConfigError
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.recognise import layer_channels

CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Settings:
    """What config.json says of the network; transformers' own defaults where it does not."""

    depth_multiplier: float = 1.0
    finegrained_output: bool = True
    tf_padding: bool = True
    layer_norm_eps: float = 1e-3
    output_stride: Literal[8, 16, 32] = 32
    classifier_dropout_prob: float = 0.8


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_size(value: object, *keys: str) -> bool:
    """Whether it is one side, or as many as there are keys."""
    if isinstance(value, dict):
        return value.keys() == set(keys) and all(_is_whole(side, 1) for side in value.values())
    return _is_whole(value, 1)


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


# What each setting may be, in words and as a test.
_Allowed = Mapping[str, tuple[str, Callable[[Any], bool]]]
_ALLOWED: _Allowed = {
    "depth_multiplier": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "finegrained_output": ("true or false", lambda v: isinstance(v, bool)),
    "tf_padding": ("true or false", lambda v: isinstance(v, bool)),
    "layer_norm_eps": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "output_stride": ("8, 16 or 32", lambda v: isinstance(v, int) and v in (8, 16, 32)),
    "classifier_dropout_prob": ("from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1),
    "id2label": ("a name for each number", lambda v: isinstance(v, dict)),
}
# What our network cannot be but so. The channels' settings besides show in the tensors.
_FIXED = {
    "model_type": "mobilenet_v2",
    "num_channels": 3,
    "depth_divisible_by": 8,
    "expand_ratio": 6,
    "first_layer_is_expansion": True,
    "hidden_act": "relu6",
}
_FIXED_PREPROCESSING = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_flip_channel_order": False,
}
_ALLOWED_PREPROCESSING: _Allowed = {
    "do_center_crop": ("true or false", lambda v: isinstance(v, bool)),
    "do_normalize": ("true or false", lambda v: isinstance(v, bool)),
    "resample": ("0 to 5, one of PIL's", lambda v: _is_whole(v, 0) and v < 6),
    "size": (
        "pixels of the shortest_edge, or of height and width",
        lambda v: _is_size(v, "shortest_edge") or _is_size(v, "height", "width"),
    ),
    "crop_size": ("pixels of height and width", lambda v: _is_size(v, "height", "width")),
    "image_mean": ("three numbers", _is_colour),
    "image_std": ("three numbers above 0", lambda v: _is_colour(v) and min(v) > 0),
}
_INTERPOLATIONS = ("nearest", "Lanczos", "bilinear", "bicubic", "box", "Hamming")  # PIL's numbers
_BILINEAR = 2
# Size of the network input, and how much longer the shorter side is before the middle is cut out.
_SIZES = {"classification": 224, "segmentation": 513}
_MARGIN = 32


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, if our network can be what it says."""
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder}: expected {CONFIG} beside the weights, found none; give the file of "
            "weights itself to assume transformers' defaults"
        )
    config = _read_json(path)
    _expect_fixed(path, config, _FIXED)
    _expect_allowed(path, config, _ALLOWED)
    return config


def read_processor(folder: Path | None, task: Task | None) -> dict[str, Any]:
    """preprocessor_config.json, if our preprocessing can be what it says, over the defaults."""
    side = _SIZES[task or "classification"]
    defaults = {
        "do_center_crop": True,
        "do_normalize": True,
        "resample": _BILINEAR,
        "size": side + _MARGIN,
        "crop_size": side,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    path = None if folder is None else folder / _PREPROCESSOR
    if path is None or not path.is_file():
        return defaults
    # transformers takes its default for a null.
    config = {key: value for key, value in _read_json(path).items() if value is not None}
    _expect_fixed(path, config, _FIXED_PREPROCESSING)
    _expect_allowed(path, config, _ALLOWED_PREPROCESSING)
    return defaults | config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, or of the encoding
        raise ConfigError(f"{path}: expected JSON, got another text ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected settings by name, got {type(content).__name__}")
    return content


def _expect_fixed(path: Path, config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, expected in fixed.items():
        got = config.get(key, expected)
        if got != expected:
            raise ConfigError(
                f"{path}: {key}: expected {json.dumps(expected)}, got {json.dumps(got)}"
            )


def _expect_allowed(path: Path, config: Mapping[str, Any], allowed: _Allowed) -> None:
    for key, (expected, is_fine) in allowed.items():
        if key in config and not is_fine(config[key]):
            raise ConfigError(f"{path}: {key}: expected {expected}, got {json.dumps(config[key])}")


def settings_of(config: Mapping[str, Any], width_mult: float, source: str) -> Settings:
    """The settings, whose width has to be that of the tensors."""
    known = [f.name for f in fields(Settings)]
    settings = Settings(**{name: config[name] for name in known if name in config})
    given = settings.depth_multiplier
    if layer_channels(given) != layer_channels(width_mult):
        raise ConfigError(
            f"{source}: {CONFIG}: depth_multiplier: expected {width_mult} as the tensors' shapes "
            f"tell, got {given}"
        )
    return settings


def preprocess_of(config: Mapping[str, Any], task: Task | None) -> tuple[PreprocessSpec, list[str]]:
    """Size and colours as the model's processor has them, and notes on what it does otherwise."""
    scaled, cut = _sides(config["size"]), _sides(config["crop_size"])
    is_cut = config["do_center_crop"]
    size = cut if is_cut else scaled
    stretches = isinstance(config["size"], dict) and "height" in config["size"]
    is_whole = stretches and size == scaled
    resize: Literal["stretch", "fit"]
    resize = "fit" if task == "segmentation" and not is_whole else "stretch"
    notes = []
    if not is_whole:
        ours = "fitted into" if resize == "fit" else "stretched to"
        theirs = f"images to {_pixels(scaled)}" if stretches else f"the shorter side to {scaled[0]}"
        cutting = f" and cuts out {_pixels(cut)} in the middle" if is_cut else ""
        notes.append(
            f"preprocessing: the whole image is {ours} {_pixels(size)}; transformers scales "
            f"{theirs}{cutting}"
        )
    if config["resample"] != _BILINEAR:
        name = _INTERPOLATIONS[config["resample"]]
        notes.append(f"preprocessing: interpolation is bilinear; the processor's is {name}")
    if not config["do_normalize"]:
        return PreprocessSpec(size, resize, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), notes
    mean, std = _colour(config["image_mean"]), _colour(config["image_std"])
    return PreprocessSpec(size, resize, mean, std), notes


def _sides(value: int | Mapping[str, int]) -> tuple[int, int]:
    """Height and width, or twice what is given for one side."""
    if isinstance(value, int):
        return value, value
    shortest = value.get("shortest_edge", 0)
    return value.get("height", shortest), value.get("width", shortest)


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
