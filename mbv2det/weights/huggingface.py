"""Importer of transformers' MobileNetV2: bare, with its classifier, or with its DeepLab head.

The source is a folder that `save_pretrained` wrote, or only its file of weights.

| transformers | here |
|---|---|
| depth_multiplier; finegrained_output false | `width_mult`; `scale_last_layer` |
| tf_padding | `padding` same, else symmetric |
| layer_norm_eps (of the head always 1e-5) | `norm_eps` |
| conv_1x1 of the segmentation model, which its head does not read | left out |
| images in [-1, 1] unless preprocessor_config.json has another mean | mean and standard deviation |
| the middle of the image is cut out; any interpolation | the whole image, bilinear; with a note |

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
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.model_config import BackboneConfig, HeadConfig, ModelConfig
from mbv2det.tasks import ClassificationTask, SegmentationTask
from mbv2det.weights.architecture import (
    class_names,
    imagenet_label_map,
    mobilenet_v2_width,
    num_outputs,
    unique_label_map,
)
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.huggingface_config import (
    CONFIG,
    NetworkSettings,
    network_settings,
    read_config,
)
from mbv2det.weights.huggingface_names import LAST_LAYER, backbone_prefix, hf_name
from mbv2det.weights.huggingface_processor import preprocess_spec, read_processor
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.state_dict import read_state_dict

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HEAD_EPS = 1e-5
_TF_DROPOUT = 0.2
_LOGITS = {
    ClassificationTask.name: "classifier.",
    SegmentationTask.name: "segmentation_head.classifier.convolution.",
}


def read_hf(source: str) -> WeightsSource:
    """Reads weights that transformers wrote.

    Args:
        source: A folder of config.json and model.safetensors or pytorch_model.bin, or one such file
            of weights, for which transformers' default settings are assumed.

    Raises:
        ConfigError: If there is no such file or folder, if it is not MobileNetV2, or if it has
            settings that our network cannot have.
    """
    path = Path(source)
    if not path.exists():
        raise ConfigError(
            f"SOURCE: expected a folder with {CONFIG}, or a file of weights, got {source}; "
            "download a model of the Hub first and give its folder"
        )
    folder = path if path.is_dir() else None
    tensors = read_state_dict(_weights_file(folder) if folder else path)
    name_of = partial(hf_name, prefix=backbone_prefix(tensors))
    width_mult = mobilenet_v2_width(tensors, name_of, source)
    config = read_config(folder) if folder else _default_config(tensors, width_mult, source)
    settings = network_settings(config, width_mult, source)
    task = _task(tensors)
    label_maps: dict[str, LabelMap] = {}
    if task is not None:
        label_maps[task] = _label_map(task, tensors, config, source)
    preprocess, preprocess_notes = preprocess_spec(read_processor(folder, task), task)
    info = WeightsInfo(
        model=ModelConfig(_backbone(settings), _heads(task, settings)),
        preprocess=preprocess,
        label_maps=label_maps,
    )
    tensors, notes = _without_unused(tensors, task)
    if not folder:
        notes.insert(
            0, f"no {CONFIG}: assumed {json.dumps(config)}; for other settings, give the folder"
        )
    if task is not None:
        notes += _dropout_notes(settings)
    notes += preprocess_notes
    num_classes = len(label_maps[task]) if task else None
    can_run = find_spec("transformers") is not None
    reference = partial(_run, tensors, config, task, num_classes) if can_run else None
    return WeightsSource(source, tensors, info, name_of, notes, reference)


def _weights_file(folder: Path) -> Path:
    files = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not files:
        raise ConfigError(f"{folder}: expected {' or '.join(_WEIGHTS)}, found neither")
    return files[0]


def _default_config(
    tensors: Mapping[str, Tensor], width_mult: float, source: str
) -> dict[str, Any]:
    """Returns transformers' default settings, with the channels of the tensors."""
    last = f"{backbone_prefix(tensors)}{LAST_LAYER}.convolution.weight"
    finegrained = last not in tensors or num_outputs(tensors, last, source) >= LAST_CHANNELS
    return asdict(NetworkSettings(depth_multiplier=width_mult, finegrained_output=finegrained))


def _task(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the task of the head; None for a bare model."""
    if any(name.startswith("segmentation_head.") for name in tensors):
        return SegmentationTask.name
    has_classifier = any(name.startswith("classifier.") for name in tensors)
    return ClassificationTask.name if has_classifier else None


def _backbone(settings: NetworkSettings) -> BackboneConfig:
    width_mult = float(settings.depth_multiplier)
    return BackboneConfig(
        width_mult=width_mult,
        output_stride=settings.output_stride,
        padding="same" if settings.tf_padding else "symmetric",
        norm_eps=float(settings.layer_norm_eps),
        scale_last_layer=width_mult < 1 and not settings.finegrained_output,
    )


def _heads(task: str | None, settings: NetworkSettings) -> dict[str, HeadConfig]:
    dropout = float(settings.classifier_dropout_prob)
    if task == SegmentationTask.name:
        return {task: DeepLabV3Config(aspp="pool", dropout=dropout, norm_eps=_HEAD_EPS)}
    if task == ClassificationTask.name:
        return {task: ClassifierConfig(dropout=dropout)}
    return {}


def _label_map(
    task: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> LabelMap:
    """Returns the names in config.json, or those of the data set with as many classes."""
    name = f"{_LOGITS[task]}weight"
    if name not in tensors:
        raise ConfigError(f"{source}: expected a tensor {name!r}, got none")
    num_classes = num_outputs(tensors, name, source)
    id2label = config.get("id2label", {})
    if id2label and set(id2label) != {str(label) for label in range(num_classes)}:
        raise ConfigError(
            f"{source}: {CONFIG}: id2label: expected a name for each of 0 to {num_classes - 1}, "
            f"got {len(id2label)} names"
        )
    names = [str(id2label[str(label)]) for label in range(num_classes)] if id2label else []
    # transformers writes such names if the user has set none.
    if names and names != [f"LABEL_{label}" for label in range(num_classes)]:
        return unique_label_map(names)
    if task == ClassificationTask.name:
        return imagenet_label_map(num_classes)
    voc_names = with_background(VOC_NAMES)
    return unique_label_map(
        voc_names if num_classes == len(voc_names) else class_names(num_classes)
    )


def _without_unused(
    tensors: Mapping[str, Tensor], task: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors without those that the segmentation model does not use, and a note."""
    unused = f"{backbone_prefix(tensors)}{LAST_LAYER}"
    used = {name: t for name, t in tensors.items() if not name.startswith(f"{unused}.")}
    if task != SegmentationTask.name or len(used) == len(tensors):
        return dict(tensors), []
    count = len(tensors) - len(used)
    return used, [f"left out {count} tensors of {unused}: the segmentation head does not use them"]


def _dropout_notes(settings: NetworkSettings) -> list[str]:
    dropout = settings.classifier_dropout_prob
    if dropout != NetworkSettings.classifier_dropout_prob:
        return []
    return [
        f"dropout {dropout} is transformers' default, while TensorFlow trained these networks with "
        f"{_TF_DROPOUT}: check it before fine-tuning"
    ]


def _run(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: str | None,
    num_classes: int | None,
    images: Tensor,
) -> Tensor:
    """Runs transformers' own network on normalised images."""
    import transformers

    networks = {
        ClassificationTask.name: transformers.MobileNetV2ForImageClassification,
        SegmentationTask.name: transformers.MobileNetV2ForSemanticSegmentation,
        None: transformers.MobileNetV2Model,
    }
    settings = config if num_classes is None else {**config, "num_labels": num_classes}
    network: Any = networks[task](transformers.MobileNetV2Config(**settings)).eval()
    network.load_state_dict(state, strict=False)  # the renaming has checked every tensor
    outputs = network(images, return_dict=True)
    return outputs.last_hidden_state if task is None else outputs.logits
