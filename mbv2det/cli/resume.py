"""Resumed runs: what they may change, and the line that says how to resume one."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml

from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.errors import (
    ConfigError,
    NonFiniteLossError,
    ProcessLostError,
    TrainingStoppedError,
)
from mbv2det.run_files import CHECKPOINTS
from mbv2det.training.checkpoints import LAST, has_checkpoint
from mbv2det.weights.header import WeightsInfo, decode_info, encode_info
from mbv2det.weights.share_file import load_weights

# Settings that the checkpoint has decided; all others take effect from the resumed epoch on.
_FIXED = (
    "backbone",
    "heads",
    "weights",
    "override_weights",
    "optim.name",
    "optim.freeze_norm",
    "data.image_size",
    "data.resize",
    "data.value_range",
)

# What gloo, NCCL and PyTorch say when a process that takes part is gone.
_LOST = re.compile(
    r"gloo|nccl|Connection (reset|closed|refused)|Broken pipe|ProcessGroup|timed? ?out",
    re.IGNORECASE,
)


def check_resumed(checkpoint: Path, info: WeightsInfo) -> WeightsInfo:
    """Reads the header of a checkpoint, which must be of the same model.

    Raises:
        ConfigError: If the checkpoint is damaged or of another model.
    """
    _, stored = load_weights(checkpoint)
    configured = decode_info(encode_info(info), str(checkpoint))
    for part, other in (
        ("model", "another network"),
        ("preprocess", "other preprocessing"),
        ("label_maps", "other classes"),
    ):
        if getattr(stored, part) != getattr(configured, part):
            raise ConfigError(
                f"--resume: {checkpoint}: expected the configured model, got one with {other}; "
                "use the configuration of that run"
            )
    return stored


def check_settings(file: Path, settings: str) -> None:
    """Compares the settings of a resumed run with its own; logs those that change.

    Args:
        file: config.yaml of the run.
        settings: Settings as they would be written to it now.

    Raises:
        ConfigError: If the file cannot be read, or if a setting differs that a checkpoint fixes.
    """
    try:
        stored = _flat(yaml.safe_load(file.read_text()) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise ConfigError(f"--resume: {file}: expected the settings of the run ({error})") from None
    now = _flat(yaml.safe_load(settings))
    changed = {key: value for key, value in now.items() if key in stored and stored[key] != value}
    for key, value in changed.items():
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _FIXED):
            raise ConfigError(
                f"--resume: {key}: expected {stored[key]}, with which the run was started, got "
                f"{value}; start a new run to change it (weights=... starts from its weights)"
            )
    for key, value in changed.items():
        log(f"resume: {key} is now {value}; it was {stored[key]}")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def resume_line(settings: Settings, folder: Path) -> Iterator[None]:
    """Says how to resume a run that a signal, an error of the system or a loss ends.

    Raises:
        ConfigError: If the system refuses to write, for instance on a full disk.
        ProcessLostError: If another process of the run is gone.
    """
    try:
        yield
    except (TrainingStoppedError, NonFiniteLossError):
        log(_how_to_resume(settings, folder))
        raise
    except OSError as error:
        log(_how_to_resume(settings, folder))
        raise ConfigError(f"the training ended: {error}") from error
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        # Each process says so itself: the one that prints for all may be the one that ended.
        raise ProcessLostError(
            f"process {dist.get_rank()} of {dist.get_world_size()}: another process of this run "
            f"ended or cannot be reached; its own error, if it had one, is above or in its log. "
            f"{_how_to_resume(settings, folder)}"
        ) from error


def _is_lost_connection(error: RuntimeError) -> bool:
    """Returns whether an error is that of a collective operation with a process that is gone."""
    return dist.is_available() and dist.is_initialized() and bool(_LOST.search(str(error)))


def _how_to_resume(settings: Settings, folder: Path) -> str:
    checkpoints = folder / CHECKPOINTS
    if not has_checkpoint(checkpoints):
        return f"{folder} has no checkpoint to resume from"
    kept = without_option(settings.arguments, "--resume")
    return f"to resume: mbv2det train {shlex.join([*kept, f'--resume={checkpoints / LAST}'])}"


def without_option(arguments: Sequence[str], option: str) -> list[str]:
    """Returns the arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith(f"{option}="):
            skip = False
        elif argument == option:
            skip = True
        else:
            kept.append(argument)
    return kept
