"""Readers of weights for training, evaluation and prediction, from wherever they are."""

from dataclasses import replace
from pathlib import Path

from mbv2det.backbones.backbone import Backbone
from mbv2det.console import log
from mbv2det.errors import ConfigError
from mbv2det.weights.huggingface import read_hf
from mbv2det.weights.huggingface_config import CONFIG
from mbv2det.weights.location import local_path
from mbv2det.weights.releases import ARCHIVES, similar_release
from mbv2det.weights.share_file import has_header, load_weights
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.torchvision import read_torchvision

HUB_WEIGHTS = "model.safetensors"
"""File of this toolkit's weights in a folder or a repository of the Hub."""

_TENSORFLOW = (*ARCHIVES, ".npz", ".pb")  # endings of TensorFlow's files


def read_model(source: str | Path) -> WeightsSource:
    """Reads a whole model; choices and omissions of the reader are logged.

    Args:
        source: A share file or checkpoint of this toolkit; a release, a frozen graph or an `.npz`
            file of TensorFlow's; a folder of this toolkit, of transformers or of TensorFlow; or
            what `local_path` takes for one of these.

    Raises:
        ConfigError: If it is missing, damaged, or none of these.
    """
    path = local_path(source)
    if path.is_dir():
        weights = read_folder(path)
    elif path.name.endswith(_TENSORFLOW):
        weights = _read_tensorflow(path)
    else:
        weights = _read_file(path, str(source))
    for note in weights.notes:
        log(f"weights: {note}")
    return replace(weights, source=str(source))


def read_backbone(source: str | Path) -> WeightsSource:
    """Reads weights that hold a backbone: a whole model, or torchvision's state dict.

    Nothing in the file is executed.

    Args:
        source: What `read_model` takes; a file of torchvision's weights or its place; or the name
            of torchvision's weights.

    Raises:
        ConfigError: If it is none of these, or damaged.
    """
    path = local_path(source)
    if path.is_dir() or path.name.endswith(_TENSORFLOW) or has_header(path):
        return replace(read_model(path), source=str(source))
    return read_torchvision(str(path))


def read_folder(folder: Path) -> WeightsSource:
    """Reads a folder, such as one of the Hub: this toolkit's, transformers' or TensorFlow's.

    Raises:
        ConfigError: If it is none of these, or damaged.
    """
    file = folder / HUB_WEIGHTS
    if has_header(file):
        return _read_file(file, str(file))
    return read_hf(str(folder)) if (folder / CONFIG).is_file() else _read_tensorflow(folder)


def weights_file(source: str | Path) -> Path | None:
    """Returns the file of a source that `read_model` takes; None for a folder of other files."""
    path = local_path(source)
    return next((file for file in (path, path / HUB_WEIGHTS) if file.is_file()), None)


def load_backbone_weights(backbone: Backbone, source: WeightsSource) -> None:
    """Loads weights into a backbone, in place.

    Tensors of the source that belong to later layers or to heads are ignored.

    Raises:
        MismatchError: If a tensor is missing, or of the wrong shape or type.
    """
    expected = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(source.backbone(expected))


def _read_file(path: Path, source: str) -> WeightsSource:
    if not path.is_file():
        raise ConfigError(
            f"weights: {source}: expected a file, found none{similar_release(source)}"
        )
    state, info = load_weights(path)
    return WeightsSource(str(path), state, info, name_of=lambda name: name)


def _read_tensorflow(path: Path) -> WeightsSource:
    from mbv2det.weights.tensorflow import read_tensorflow  # prediction needs no protocol buffers

    return read_tensorflow(str(path))
