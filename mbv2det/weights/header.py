"""The header of weights files: everything except the tensors, as JSON.

Format 3 contains the name of every head, and only heads that exist. Headers of format 2 are
upgraded when they are read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model_config import (
    BackboneConfig,
    EvalConfig,
    HeadConfig,
    ModelConfig,
    head_names,
    stored_settings,
)
from mbv2det.parsing import parse_dataclass
from mbv2det.preprocess import PreprocessSpec
from mbv2det.tasks import TASKS

HEADER = "mbv2det"  # key of the header, in a share file's metadata and in a checkpoint
_FORMAT = 3
# Prefixes of tensors that have other names in format 2: old prefix, new prefix.
_RENAMED_TENSORS = (("heads.classification.classifier.", "heads.classification."),)
# Keys of callbacks in checkpoints of format 2: one that was removed, and others with new names.
_BEST_CHECKPOINT = "ModelCheckpoint{'monitor': 'val/score'"
_RENAMED_CALLBACKS = {"ShareBest": "BestWeights"}


@dataclass(frozen=True)
class WeightsInfo:
    """The header of a weights file.

    Attributes:
        model: Architecture.
        preprocess: Preprocessing of the images that the network was trained on.
        label_maps: Label map of each task.
        eval: Postprocessing with which the metrics were measured.
        metrics: Content of metrics.json; empty if not measured.
        command: Command that trained the weights; empty if they were imported.
    """

    model: ModelConfig
    preprocess: PreprocessSpec
    label_maps: Mapping[str, LabelMap]
    eval: EvalConfig = EvalConfig()
    metrics: dict[str, Any] = field(default_factory=dict)
    command: str = ""


def encode_info(info: WeightsInfo) -> str:
    """Returns the header as JSON text, without the settings that belong to a run alone."""
    values = asdict(info)
    values["model"]["heads"] = {t: stored_settings(head) for t, head in info.model.heads.items()}
    values["labels"] = values.pop("label_maps")  # the name in the files
    return json.dumps({"format": _FORMAT, **values})


def decode_info(text: str, file: str) -> WeightsInfo:
    """Reads a header that `encode_info` wrote, in this version or an earlier one.

    Args:
        text: The header.
        file: Name of the file, for messages.

    Raises:
        ConfigError: If the header is of an unknown format or a value is invalid.
    """
    header = _upgraded(json.loads(text), file)
    backbone, heads = header["model"]["backbone"], header["model"]["heads"]
    return WeightsInfo(
        model=ModelConfig(
            parse_dataclass(BackboneConfig, backbone),
            {task: _parse_head(task, values, file) for task, values in heads.items()},
        ),
        preprocess=parse_dataclass(PreprocessSpec, header["preprocess"]),
        label_maps={task: parse_dataclass(LabelMap, m) for task, m in header["labels"].items()},
        eval=parse_dataclass(EvalConfig, header["eval"]),
        metrics=header["metrics"],
        command=header.get("command", ""),
    )


def upgrade_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict with this version's names of tensors."""
    upgraded = {}
    for name, tensor in state.items():
        for old, new in _RENAMED_TENSORS:
            if name.startswith(old):
                name = new + name.removeprefix(old)
        upgraded[name] = tensor
    return upgraded


def upgrade_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Updates the state of a run that an earlier version saved, in place."""
    callbacks = checkpoint.get("callbacks", {})
    for old, new in _RENAMED_CALLBACKS.items():
        if old in callbacks:
            callbacks[new] = callbacks.pop(old)
    # Earlier versions also saved the best checkpoint, in addition to the best weights.
    for key in [key for key in callbacks if key.startswith(_BEST_CHECKPOINT)]:
        del callbacks[key]


def _parse_head(task: str, values: dict[str, Any], file: str) -> HeadConfig:
    return parse_dataclass(_head_class(task, values, file), values)


def _head_class(task: str, values: dict[str, Any], file: str) -> type[HeadConfig]:
    """Returns the configuration class of a head.

    Raises:
        ConfigError: If this version has no such task or head.
    """
    head_classes = TASKS[task].head_kinds if task in TASKS else ()
    for head_class in head_classes:
        if values.get("name") in head_names(head_class):
            return head_class
    raise ConfigError(
        f"weights: {file}: expected a head of this version of mbv2det, got "
        f"{values.get('name')!r} for {task}"
    )


def _upgraded(header: dict[str, Any], file: str) -> dict[str, Any]:
    """Returns a header in the current format.

    Raises:
        ConfigError: If it is of a format that cannot be upgraded.
    """
    if header.get("format") == 2:
        model = header["model"]
        backbone = {k: v for k, v in model["backbone"].items() if k != "weights"}
        heads = {
            task: _upgraded_head(task, values, file)
            for task, values in model["heads"].items()
            if values is not None
        }
        return header | {"format": _FORMAT, "model": {"backbone": backbone, "heads": heads}}
    if header.get("format") != _FORMAT:
        raise ConfigError(
            f"weights: {file}: expected format {_FORMAT}, got {header.get('format')}; read it "
            "with the version of mbv2det that wrote it"
        )
    return header


def _upgraded_head(task: str, values: dict[str, Any], file: str) -> dict[str, Any]:
    """Returns a head of format 2 with its name, and without settings of other heads."""
    if "name" not in values:  # only the classifier has none in format 2
        (name,) = head_names(TASKS[task].head_kinds[0])
        values = {**values, "name": name}
    known = {f.name for f in fields(_head_class(task, values, file))}
    return {key: value for key, value in values.items() if key in known}
