"""Weights to share: one safetensors file that carries all it takes to use them.

Architecture, preprocessing, labels, thresholds and measured metrics ride in the header as JSON.
Nothing in such a file can run code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.config import EvalConfig, ModelConfig
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.parsing import parse_dataclass
from mbv2det.preprocess import PreprocessSpec

_KEY = "mbv2det"
ORIGIN = "mbv2det_origin"  # of checkpoints: names of what came from files
_FORMAT = 2


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about its weights.

    Attributes:
        model: Architecture.
        preprocess: What the network's input must look like.
        labels: Of each task.
        eval: Postprocessing that the metrics were measured with.
        metrics: As metrics.json; empty if never measured.
        command: That trained them; empty if imported.
    """

    model: ModelConfig
    preprocess: PreprocessSpec
    labels: Mapping[str, LabelMap]
    eval: EvalConfig = EvalConfig()
    metrics: dict[str, Any] = field(default_factory=dict)
    command: str = ""


def save_weights(path: Path, state: dict[str, Tensor], info: WeightsInfo) -> None:
    """Writes a file that appears whole or not at all.

    Raises:
        ConfigError: If the place cannot be written to.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        with atomic_write(path) as part:
            save_file(state, part, metadata={_KEY: encode_info(info), "format": "pt"})
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be written ({error})") from None


def encode_info(info: WeightsInfo) -> str:
    """The header as JSON text."""
    return json.dumps({"format": _FORMAT, **asdict(info)})


def load_weights(path: Path) -> tuple[dict[str, Tensor], WeightsInfo]:
    """Tensors and header of a share file, or of a checkpoint of a run (its averaged weights).

    Raises:
        ConfigError: If it is missing, damaged, or not one of this toolkit's.
    """
    if not path.is_file():
        raise ConfigError(f"weights: {path}: expected a file, found none")
    if path.suffix not in (".safetensors", ".ckpt"):
        raise ConfigError(
            f"weights: {path}: expected a .safetensors or .ckpt file of this toolkit; "
            "import_weights makes one of other libraries' weights"
        )
    state, header = _read_checkpoint(path) if path.suffix == ".ckpt" else _read_share_file(path)
    if header is None:
        raise ConfigError(f"weights: {path}: tensors, but not of this toolkit: it has no header")
    return state, _decode_info(path, json.loads(header))


def has_header(path: Path) -> bool:
    """Whether a file is one of this toolkit's, as far as its name and header tell.

    Raises:
        ConfigError: If it is a damaged safetensors file.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return path.suffix == ".ckpt"
    try:
        with safe_open(path, framework="pt") as opened:
            return _KEY in (opened.metadata() or {})
    except SafetensorError as error:
        raise ConfigError(f"weights: {path}: not a whole safetensors file ({error})") from None


def _read_share_file(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as opened:
            header = (opened.metadata() or {}).get(_KEY)
        return load_file(path), header
    except SafetensorError as error:
        raise ConfigError(f"weights: {path}: not a whole safetensors file ({error})") from None


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str | None]:
    content = load_tensors(path)
    state = content.get("state_dict", {})
    prefix = "model."
    ours = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return ours, content.get(_KEY)


def load_origin(checkpoint: Path) -> tuple[frozenset[str], frozenset[str]]:
    """What a checkpoint's run began with: names of tensors from files, and of a whole model's.

    Raises:
        ConfigError: As `load_tensors`.
    """
    origin = load_tensors(checkpoint).get(ORIGIN, {"loaded": (), "kept": ()})
    return frozenset(origin["loaded"]), frozenset(origin["kept"])


def load_tensors(path: Path) -> dict[str, Any]:
    """A dictionary saved by `torch.save`; nothing but tensors and plain values is unpickled.

    Raises:
        ConfigError: If the file is missing, damaged, or holds anything that could run.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: expected a file, found none")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ConfigError(
            f"{path}: not a file of tensors alone: it holds other objects, or is damaged; nothing "
            "in it was executed"
        ) from None
    except Exception:  # torch raises anything from KeyError to RuntimeError here
        raise ConfigError(
            f"{path}: not a file of tensors that torch.save wrote, or cut short"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a state dict, got another object")
    return content


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file or one of `torch.save`; nothing is executed.

    Raises:
        ConfigError: If the file is missing, damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ConfigError(f"{path}: expected a file, found none")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ConfigError(f"{path}: not a whole safetensors file ({error})") from None
    if path.suffix == ".npz":
        raise ConfigError(f"{path}: expected a file of torch.save or safetensors, got .npz (tf's)")
    content = load_tensors(path)
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ConfigError(
                f"{path}: expected a state dict of tensors by name, got "
                f"{type(value).__name__} under {name!r}"
            )
    return content


def _decode_info(path: Path, header: dict[str, Any]) -> WeightsInfo:
    if header.get("format") != _FORMAT:
        raise ConfigError(
            f"weights: {path}: expected format {_FORMAT}, got {header.get('format')}: it was "
            "written by another version of mbv2det"
        )
    return WeightsInfo(
        model=parse_dataclass(ModelConfig, header["model"]),
        preprocess=parse_dataclass(PreprocessSpec, header["preprocess"]),
        labels={task: parse_dataclass(LabelMap, map_) for task, map_ in header["labels"].items()},
        eval=parse_dataclass(EvalConfig, header["eval"]),
        metrics=header["metrics"],
        command=header.get("command", ""),
    )
