"""State dicts in files of unknown origin, read without executing anything in them."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mbv2det.errors import ConfigError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads tensors by name from a `.safetensors` file or a file of `torch.save`.

    Raises:
        ConfigError: If the file is missing, damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ConfigError(f"{path}: expected a file, found none")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ConfigError(
                f"{path}: expected a safetensors file, got a damaged one ({error})"
            ) from None
    if path.suffix == ".npz":
        raise ConfigError(
            f"{path}: expected a file of torch.save or safetensors, got an .npz file, which is of "
            "FORMAT tf"
        )
    content = load_tensors(path)
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ConfigError(
                f"{path}: expected a state dict of tensors by name, got "
                f"{type(value).__name__} under {name!r}"
            )
    return content


def load_tensors(path: Path) -> dict[str, Any]:
    """Reads a dictionary of tensors and plain values that `torch.save` wrote.

    No other object is unpickled.

    Raises:
        ConfigError: If the file is missing, damaged, or holds other objects.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: expected a file, found none")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ConfigError(
            f"{path}: expected a file of tensors alone, got other objects or a damaged file; "
            "nothing in it was executed"
        ) from None
    except Exception:  # torch raises anything from KeyError to RuntimeError here
        raise ConfigError(
            f"{path}: expected a file of tensors that torch.save wrote, got another or damaged one"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a state dict, got another object")
    return content
