"""transformers' MobileNetV2: bare, with its classifier, or with its DeepLab head.

From a folder that `save_pretrained` wrote, or from its file of weights alone.

| there | here |
|---|---|
| depth_multiplier; finegrained_output false | `width_mult`; `scale_last_layer` |
| tf_padding | `padding` same, else symmetric |
| layer_norm_eps (the head's is 1e-5 always) | `norm_eps` |
| conv_1x1 of the segmentation model, which nothing reads | left out |
| images in [-1, 1] unless preprocessor_config.json has another mean | mean and standard deviation |
| the middle of an image cut out; interpolation | the whole image, bilinear; said in a note |

Source: transformers `models/mobilenet_v2/modeling_mobilenet_v2.py`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mbv2det.config import (
    BackboneConfig,
    ClassificationHeadConfig,
    HeadsConfig,
    ModelConfig,
    SegmentationHeadConfig,
)
from mbv2det.errors import ConfigError
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.files import WeightsInfo
from mbv2det.weights.foreign import (
    Foreign,
    Place,
    imagenet_labels,
    layer_channels,
    mobilenet_v2_width,
    num_outputs,
    numbered,
    read_state_dict,
)

_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "mobilenet_v2."
_LAST = "conv_1x1."
_LAST_CHANNELS = 1280
_HEAD_EPS = 1e-5
_TF_DROPOUT = 0.2

_MODULES = {
    "heads.classification.classifier.linear": "classifier",
    "heads.segmentation.aspp.pool": "segmentation_head.conv_pool",
    "heads.segmentation.aspp.pointwise": "segmentation_head.conv_aspp",
    "heads.segmentation.aspp.project": "segmentation_head.conv_projection",
    "heads.segmentation.classifier": "segmentation_head.classifier.convolution",
}
_CLASSIFIERS = {
    "classification": "classifier.",
    "segmentation": "segmentation_head.classifier.convolution.",
}
_PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
_KINDS = {"conv": "convolution", "norm": "normalization"}

_Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class _Settings:
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


def read_hf(source: str) -> Foreign:
    """Weights that transformers wrote.

    Args:
        source: A folder of config.json and model.safetensors or pytorch_model.bin, or one such file
            of weights, for which transformers' default settings are assumed.

    Raises:
        ConfigError: If there is no such file or folder, it is not MobileNetV2, or its settings are
            none that our network has.
    """
    path = Path(source)
    if not path.exists():
        raise ConfigError(
            f"SOURCE: expected a folder with {_CONFIG}, or a file of weights, got {source}; "
            "download a model of the Hub first and give its folder"
        )
    folder = path if path.is_dir() else None
    tensors = read_state_dict(_weights_file(folder) if folder else path)
    name_of = partial(hf_name, prefix=_prefix(tensors))
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    config = _read_config(folder) if folder else _guess_config(tensors, width_mult, source)
    settings = _settings(config, width_mult, source)
    task = _task(tensors)
    labels: dict[str, LabelMap] = {}
    if task is not None:
        labels[task] = _labels(task, tensors, config, source)
    preprocess, preprocess_notes = _preprocess(_read_processor(folder, task), task)
    info = WeightsInfo(
        model=ModelConfig(_backbone(settings), _heads(task, settings)),
        preprocess=preprocess,
        labels=labels,
    )
    used, notes = _used(tensors, task)
    if not folder:
        notes.insert(0, f"no {_CONFIG}: assumed {json.dumps(config)}; else give the folder")
    if task is not None:
        notes += _dropout_notes(settings)
    notes += preprocess_notes
    count = len(labels[task]) if task else None
    runs = find_spec("transformers") is not None
    reference = partial(_run, used, config, task, count) if runs else None
    return Foreign(source, used, info, name_of, notes, reference)


def hf_name(ours: str, prefix: str = _PREFIX) -> str:
    """Its name of a tensor of ours.

    Args:
        ours: Tensor of the network.
        prefix: Of the backbone's tensors; empty in a bare model.
    """
    place = Place.of(ours)
    if place is not None:
        return f"{prefix}{_module(place)}.{_KINDS[place.kind]}.{place.tensor}"
    for module, theirs in _MODULES.items():
        if ours.startswith(f"{module}."):
            rest = ours.removeprefix(module)
            for kind, other in _KINDS.items():
                rest = rest.replace(f".{kind}.", f".{other}.")
            return theirs + rest
    return ours


def _module(place: Place) -> str:
    """Counted from our third layer; the first two make up the stem."""
    if place.layer == 19:
        return _LAST.removesuffix(".")
    if place.layer == 1:
        return "conv_stem.first_conv"
    block = "conv_stem" if place.layer == 2 else f"layer.{place.layer - 3}"
    return f"{block}.{_PARTS[place.part]}"


def _prefix(tensors: Mapping[str, Tensor]) -> str:
    return _PREFIX if any(name.startswith(_PREFIX) for name in tensors) else ""


def _task(tensors: Mapping[str, Tensor]) -> _Task | None:
    """What the head is for; None for a bare model."""
    if any(name.startswith("segmentation_head.") for name in tensors):
        return "segmentation"
    return "classification" if any(name.startswith("classifier.") for name in tensors) else None


# Files


def _weights_file(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not found:
        raise ConfigError(f"{folder}: expected {' or '.join(_WEIGHTS)}, found neither")
    return found[0]


def _read_config(folder: Path) -> dict[str, Any]:
    """config.json, if our network can be what it says."""
    path = folder / _CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder}: expected {_CONFIG} beside the weights, found none; give the file of "
            "weights itself to assume transformers' defaults"
        )
    config = _read_json(path)
    _expect_fixed(path, config, _FIXED)
    _expect_allowed(path, config, _ALLOWED)
    return config


def _read_processor(folder: Path | None, task: _Task | None) -> dict[str, Any]:
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


def _guess_config(tensors: Mapping[str, Tensor], width_mult: float, source: str) -> dict[str, Any]:
    """The defaults of transformers, with what the tensors' shapes tell."""
    last = f"{_prefix(tensors)}{_LAST}convolution.weight"
    fine = last not in tensors or num_outputs(tensors, last, source) >= _LAST_CHANNELS
    return asdict(_Settings(depth_multiplier=width_mult, finegrained_output=fine))


def _settings(config: Mapping[str, Any], width_mult: float, source: str) -> _Settings:
    """The settings, whose width has to be that of the tensors."""
    known = [f.name for f in fields(_Settings)]
    settings = _Settings(**{name: config[name] for name in known if name in config})
    given = settings.depth_multiplier
    if layer_channels(given) != layer_channels(width_mult):
        raise ConfigError(
            f"{source}: {_CONFIG}: depth_multiplier: expected {width_mult} as the tensors' shapes "
            f"tell, got {given}"
        )
    return settings


# The network of ours


def _backbone(settings: _Settings) -> BackboneConfig:
    width_mult = float(settings.depth_multiplier)
    return BackboneConfig(
        width_mult=width_mult,
        output_stride=settings.output_stride,
        padding="same" if settings.tf_padding else "symmetric",
        norm_eps=float(settings.layer_norm_eps),
        scale_last_layer=width_mult < 1 and not settings.finegrained_output,
    )


def _heads(task: _Task | None, settings: _Settings) -> HeadsConfig:
    dropout = float(settings.classifier_dropout_prob)
    if task == "segmentation":
        head = SegmentationHeadConfig(
            name="deeplabv3", aspp="pool", dropout=dropout, norm_eps=_HEAD_EPS
        )
        return HeadsConfig(segmentation=head)
    if task == "classification":
        return HeadsConfig(classification=ClassificationHeadConfig(dropout))
    return HeadsConfig()


def _labels(
    task: _Task, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> LabelMap:
    """The names that config.json gives, or those of the data set with so many classes."""
    name = f"{_CLASSIFIERS[task]}weight"
    if name not in tensors:
        raise ConfigError(f"{source}: expected a tensor {name!r}, got none")
    count = num_outputs(tensors, name, source)
    given = config.get("id2label", {})
    if given and set(given) != {str(label) for label in range(count)}:
        raise ConfigError(
            f"{source}: {_CONFIG}: id2label: expected a name for each of 0 to {count - 1}, got "
            f"{len(given)} names"
        )
    names = [str(given[str(label)]) for label in range(count)] if given else []
    # transformers writes such names where nobody has given any.
    if names and names != [f"LABEL_{label}" for label in range(count)]:
        return numbered(names)
    if task == "classification":
        return imagenet_labels(count)
    voc = with_background(VOC_NAMES)
    return numbered(voc if count == len(voc) else [f"class {label}" for label in range(count)])


def _preprocess(config: Mapping[str, Any], task: _Task | None) -> tuple[PreprocessSpec, list[str]]:
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


def _used(tensors: Mapping[str, Tensor], task: _Task | None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors without those that the segmentation model carries along, and a note."""
    unused = f"{_prefix(tensors)}{_LAST}"
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    if task != "segmentation" or len(used) == len(tensors):
        return dict(tensors), []
    count = len(tensors) - len(used)
    return used, [f"left out {count} tensors of {unused[:-1]}: the segmentation head reads none"]


def _dropout_notes(settings: _Settings) -> list[str]:
    dropout = settings.classifier_dropout_prob
    if dropout != _Settings.classifier_dropout_prob:
        return []
    return [
        f"dropout {dropout} is transformers' default; what TensorFlow trained with dropped "
        f"{_TF_DROPOUT}, so mind it when fine-tuning"
    ]


def _run(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: _Task | None,
    count: int | None,
    images: Tensor,
) -> Tensor:
    """The network of transformers on normalised images."""
    import transformers

    kinds = {
        "classification": transformers.MobileNetV2ForImageClassification,
        "segmentation": transformers.MobileNetV2ForSemanticSegmentation,
        None: transformers.MobileNetV2Model,
    }
    settings = config if count is None else {**config, "num_labels": count}
    network: Any = kinds[task](transformers.MobileNetV2Config(**settings)).eval()
    network.load_state_dict(state, strict=False)  # the renaming has accounted for every tensor
    outputs = network(images, return_dict=True)
    return outputs.last_hidden_state if task is None else outputs.logits
