"""TensorFlow's variables by name, for inference, from any file that they are published in."""

import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mbv2det.errors import ConfigError
from mbv2det.weights.releases import ARCHIVES, similar_release
from mbv2det.weights.tensorflow_bundle import read_bundle
from mbv2det.weights.tensorflow_graph import read_frozen_graph

_NUMERIC_KINDS = "biuf"  # `numpy.dtype.kind` of numbers
# Errors that numpy raises for a damaged archive, or a file that is not an archive.
_READ_ERRORS = (ValueError, OSError, EOFError, AttributeError, RuntimeError, BadZipFile, zlib.error)
# The files of a release that are read.
_PUBLISHED = re.compile(r"(\.index|\.data-\d{5}-of-\d{5}|frozen_\w*\.pb)$")
_AVERAGE = "/ExponentialMovingAverage"
# Variables that only training needs: optimisers' slots and counters.
_TRAINING = re.compile(
    r"(^|/)(global_step|learning_rate|beta[12]_power|RMSProp(_1)?|Momentum|Adam(_1)?)$"
)


def read_variables(source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads the variables that inference needs, and notes on the others.

    Moving averages replace their variables; variables that only training needs are left out.

    Args:
        source: An `.npz` file, the prefix, index file or folder of a checkpoint, a frozen graph
            (`.pb`), or the archive (`.tar.gz`) of a release.

    Raises:
        ConfigError: If the source cannot be read, or holds anything but numbers.
    """
    path = Path(source)
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_published(source)
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


def _read_published(source: str) -> dict[str, Any]:
    """Reads a checkpoint, a frozen graph, or the archive or folder of a release."""
    path = Path(source)
    if path.name.endswith(ARCHIVES) and path.is_file():
        return _read_archive(path)
    if path.suffix == ".pb":
        return read_frozen_graph(path)
    prefix = _checkpoint_in(path) if path.is_dir() else re.sub(r"\.(index|data-\S+)$", "", source)
    if prefix is None or not Path(f"{prefix}.index").is_file():
        raise ConfigError(
            f"{source}: expected TensorFlow's variables as an .npz file, a checkpoint (the PREFIX "
            "of PREFIX.index), a frozen graph (.pb), or the folder, archive (.tar.gz) or name of a "
            f"release, found none{similar_release(source)}"
        )
    return read_bundle(prefix)


def _checkpoint_in(folder: Path) -> str | None:
    """Returns the prefix of the only checkpoint in a folder, or of the newest of several."""
    prefixes = [str(file).removesuffix(".index") for file in folder.glob("*.index")]
    return max(prefixes, key=_step, default=None)


def _step(prefix: str) -> int:
    """Returns the step in the name of a checkpoint, as in `model.ckpt-1000`; 0 for none."""
    match = re.search(r"-(\d+)$", prefix)
    return int(match[1]) if match else 0


def _read_archive(path: Path) -> dict[str, Any]:
    """Reads the checkpoint in an archive, or its frozen graph if it has no checkpoint."""
    try:
        with tarfile.open(path) as archive, TemporaryDirectory() as folder:
            members = [m for m in archive.getmembers() if m.isfile() and _PUBLISHED.search(m.name)]
            for member in members:
                member.name = Path(member.name).name  # the folders of the archive do not matter
                archive.extract(member, folder, filter="data")
            names = {member.name for member in members}
            graphs = sorted(name for name in names if name.endswith(".pb"))
            if not graphs or any(name.endswith(".index") for name in names):
                return _read_published(folder)
            return read_frozen_graph(Path(folder) / graphs[0])
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = str(error).partition("\n")[0].rstrip(": ")
        raise ConfigError(f"{path}: not a whole archive ({reason})") from None
    except ConfigError as error:
        message = str(error).partition(": ")[2]  # without the path of the temporary folder
        raise ConfigError(f"{path}: {message}") from None


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
