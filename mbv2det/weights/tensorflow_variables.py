"""TensorFlow's variables by name, from an `.npz` file or a checkpoint, for inference."""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mbv2det.errors import ConfigError

_NUMERIC_KINDS = "biuf"  # `numpy.dtype.kind` of numbers
# Errors that numpy raises for a damaged archive, or a file that is not an archive.
_READ_ERRORS = (ValueError, OSError, EOFError, AttributeError, RuntimeError, BadZipFile, zlib.error)
_AVERAGE = "/ExponentialMovingAverage"
# Variables that only training needs: optimisers' slots and counters.
_TRAINING = re.compile(
    r"(^|/)(global_step|learning_rate|beta[12]_power|RMSProp(_1)?|Momentum|Adam(_1)?)$"
)


def read_variables(source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads the variables that inference needs, and notes on the others.

    Moving averages replace their variables; variables that only training needs are left out.

    Args:
        source: An `.npz` file, or the prefix, index file or folder of a checkpoint.

    Raises:
        ConfigError: If the source cannot be read, or holds anything but numbers.
    """
    path = Path(source)
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_checkpoint(source)
    for name, array in arrays.items():
        dtype = np.asarray(array).dtype
        if dtype.kind not in _NUMERIC_KINDS:
            raise ConfigError(f"{source}: expected arrays of numbers, got {dtype} under {name!r}")
    return _for_inference(arrays)


def _read_npz(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: expected a file, found none")
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return {name: content[name] for name in content.files}
    except _READ_ERRORS as error:
        raise ConfigError(
            f"{path}: expected an .npz file of arrays, got a damaged or other file ({error})"
        ) from None


def _read_checkpoint(source: str) -> dict[str, Any]:
    prefix = source.removesuffix(".index")
    if not (Path(prefix).is_dir() or Path(f"{prefix}.index").is_file()):
        raise ConfigError(
            f"{source}: expected an .npz file of TensorFlow's variables, or a checkpoint "
            f"(the PREFIX of PREFIX.index), found none"
        )
    try:
        import tensorflow
    except ImportError:
        raise ConfigError(
            f"{source}: reading a checkpoint needs tensorflow (pip install tensorflow); or save "
            "its variables on a machine with tensorflow: r = tf.train.load_checkpoint(PREFIX); "
            "np.savez('weights.npz', **{n: r.get_tensor(n) for n in r.get_variable_to_shape_map()})"
        ) from None
    try:
        reader = tensorflow.train.load_checkpoint(prefix)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tensorflow.errors.OpError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{source}: expected a checkpoint, got a damaged one ({error})") from None


def _for_inference(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the variables that inference needs, replaced by their moving averages, and notes."""
    variables = {name: array for name, array in arrays.items() if not _TRAINING.search(name)}
    averages = [name for name in variables if name.endswith(_AVERAGE)]
    averaged = {name.removesuffix(_AVERAGE): variables.pop(name) for name in averages}
    notes = []
    num_left_out = len(arrays) - len(variables) - len(averages)
    if num_left_out:
        notes.append(
            f"left out {num_left_out} variables that only training needs: optimiser, counters"
        )
    if averaged:
        notes.append(f"used {len(averaged)} moving averages in place of their variables")
    return variables | averaged, notes
