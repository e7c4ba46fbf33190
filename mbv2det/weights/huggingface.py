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
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from mbv2det.backbones.mobilenet_v2 import LAST_CHANNELS
from mbv2det.config import (
    BackboneConfig,
    ClassificationHeadConfig,
    HeadsConfig,
    ModelConfig,
    SegmentationHeadConfig,
)
from mbv2det.errors import ConfigError
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.weights.files import WeightsInfo, read_state_dict
from mbv2det.weights.foreign import Foreign
from mbv2det.weights.huggingface_config import (
    CONFIG,
    Settings,
    Task,
    preprocess_of,
    read_config,
    read_processor,
    settings_of,
)
from mbv2det.weights.recognise import (
    CLASSIFIER,
    Place,
    imagenet_labels,
    mobilenet_v2_width,
    num_outputs,
    numbered,
)

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "mobilenet_v2."
_LAST = "conv_1x1."
_HEAD_EPS = 1e-5
_TF_DROPOUT = 0.2

_MODULES = {
    CLASSIFIER: "classifier",
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
            f"SOURCE: expected a folder with {CONFIG}, or a file of weights, got {source}; "
            "download a model of the Hub first and give its folder"
        )
    folder = path if path.is_dir() else None
    tensors = read_state_dict(_weights_file(folder) if folder else path)
    name_of = partial(hf_name, prefix=_prefix(tensors))
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    config = read_config(folder) if folder else _guess_config(tensors, width_mult, source)
    settings = settings_of(config, width_mult, source)
    task = _task(tensors)
    labels: dict[str, LabelMap] = {}
    if task is not None:
        labels[task] = _labels(task, tensors, config, source)
    preprocess, preprocess_notes = preprocess_of(read_processor(folder, task), task)
    info = WeightsInfo(
        model=ModelConfig(_backbone(settings), _heads(task, settings)),
        preprocess=preprocess,
        labels=labels,
    )
    used, notes = _used(tensors, task)
    if not folder:
        notes.insert(0, f"no {CONFIG}: assumed {json.dumps(config)}; else give the folder")
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


def _task(tensors: Mapping[str, Tensor]) -> Task | None:
    """What the head is for; None for a bare model."""
    if any(name.startswith("segmentation_head.") for name in tensors):
        return "segmentation"
    return "classification" if any(name.startswith("classifier.") for name in tensors) else None


def _weights_file(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not found:
        raise ConfigError(f"{folder}: expected {' or '.join(_WEIGHTS)}, found neither")
    return found[0]


def _backbone(settings: Settings) -> BackboneConfig:
    width_mult = float(settings.depth_multiplier)
    return BackboneConfig(
        width_mult=width_mult,
        output_stride=settings.output_stride,
        padding="same" if settings.tf_padding else "symmetric",
        norm_eps=float(settings.layer_norm_eps),
        scale_last_layer=width_mult < 1 and not settings.finegrained_output,
    )


def _heads(task: Task | None, settings: Settings) -> HeadsConfig:
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
    task: Task, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> LabelMap:
    """The names that config.json gives, or those of the data set with so many classes."""
    name = f"{_CLASSIFIERS[task]}weight"
    if name not in tensors:
        raise ConfigError(f"{source}: expected a tensor {name!r}, got none")
    count = num_outputs(tensors, name, source)
    given = config.get("id2label", {})
    if given and set(given) != {str(label) for label in range(count)}:
        raise ConfigError(
            f"{source}: {CONFIG}: id2label: expected a name for each of 0 to {count - 1}, got "
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


def _guess_config(tensors: Mapping[str, Tensor], width_mult: float, source: str) -> dict[str, Any]:
    """The defaults of transformers, with what the tensors' shapes tell."""
    last = f"{_prefix(tensors)}{_LAST}convolution.weight"
    fine = last not in tensors or num_outputs(tensors, last, source) >= LAST_CHANNELS
    return asdict(Settings(depth_multiplier=width_mult, finegrained_output=fine))


def _used(tensors: Mapping[str, Tensor], task: Task | None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors without those that the segmentation model carries along, and a note."""
    unused = f"{_prefix(tensors)}{_LAST}"
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    if task != "segmentation" or len(used) == len(tensors):
        return dict(tensors), []
    count = len(tensors) - len(used)
    return used, [f"left out {count} tensors of {unused[:-1]}: the segmentation head reads none"]


def _dropout_notes(settings: Settings) -> list[str]:
    dropout = settings.classifier_dropout_prob
    if dropout != Settings.classifier_dropout_prob:
        return []
    return [
        f"dropout {dropout} is transformers' default; what TensorFlow trained with dropped "
        f"{_TF_DROPOUT}, so mind it when fine-tuning"
    ]


def _run(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: Task | None,
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
