"""Share files: weights and everything that is needed to use them in one `.safetensors` file.

The header contains the architecture, preprocessing, label maps, thresholds and measured metrics as
JSON. Checkpoints of a training run contain the same header. Reading either cannot run code.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.errors import ConfigError
from mbv2det.weights.header import HEADER, WeightsInfo, decode_info, encode_info, upgrade_tensors
from mbv2det.weights.state_dict import load_tensors

ORIGIN = "mbv2det_origin"  # key in a checkpoint: names of the tensors that were loaded from files
_CHECKPOINT_PREFIX = "model."  # prefix of the network's tensors in a checkpoint's state dict


def save_weights(path: Path, state: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Writes a share file atomically: it appears complete or not at all.

    Args:
        path: File to write; its folder is created if needed.
        state: State dict of the network.
        info: Header of the file.

    Raises:
        ConfigError: If the file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        with atomic_write(path) as part:
            save_file(state, part, metadata={HEADER: encode_info(info), "format": "pt"})
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be written ({error})") from None


def load_weights(path: Path) -> tuple[dict[str, Tensor], WeightsInfo]:
    """Reads the state dict and the header of a share file or of a run's checkpoint.

    For a checkpoint, the averaged weights are returned.

    Raises:
        ConfigError: If the file is missing, damaged, or not a file of this toolkit.
    """
    if not path.is_file():
        raise ConfigError(f"weights: {path}: expected a file, found none")
    if path.suffix not in (".safetensors", ".ckpt"):
        raise ConfigError(
            f"weights: {path}: expected a .safetensors or .ckpt file of this toolkit; "
            "import_weights converts the weights of other libraries"
        )
    state, header = _read_checkpoint(path) if path.suffix == ".ckpt" else _read_share_file(path)
    if header is None:
        raise ConfigError(
            f"weights: {path}: expected a file of this toolkit, got tensors without its header"
        )
    return upgrade_tensors(state), decode_info(header, str(path))


def has_header(path: Path) -> bool:
    """Returns whether a file is one of this toolkit, according to its suffix and header.

    Raises:
        ConfigError: If it is a damaged safetensors file.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return path.suffix == ".ckpt"
    return _read_header(path) is not None


def load_origin(checkpoint: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Reads the origin of the tensors at the start of a checkpoint's run.

    Returns:
        Names of the tensors that were loaded from a file, and of those loaded from the weights of a
        whole model.

    Raises:
        ConfigError: If the file is missing, damaged, or holds more than tensors and plain values.
    """
    origin = load_tensors(checkpoint).get(ORIGIN, encode_origin((), ()))
    return frozenset(origin["loaded"]), frozenset(origin["kept"])


def encode_origin(loaded: Collection[str], transferred: Collection[str]) -> dict[str, list[str]]:
    """Returns the entry `ORIGIN` of a checkpoint.

    Args:
        loaded: Names of the tensors that were loaded from a file.
        transferred: Names of the tensors that were loaded from the weights of a whole model.
    """
    return {"loaded": sorted(loaded), "kept": sorted(transferred)}


def _read_share_file(path: Path) -> tuple[dict[str, Tensor], str | None]:
    header = _read_header(path)
    try:
        return load_file(path), header
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _read_header(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(HEADER)
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: SafetensorError) -> ConfigError:
    return ConfigError(f"weights: {path}: expected a safetensors file, got a damaged one ({error})")


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str | None]:
    content = load_tensors(path)
    state = {
        name.removeprefix(_CHECKPOINT_PREFIX): tensor
        for name, tensor in content.get("state_dict", {}).items()
        if name.startswith(_CHECKPOINT_PREFIX)
    }
    return state, content.get(HEADER)
