"""Readers of weights files for training, evaluation and prediction."""

from pathlib import Path

from mbv2det.backbones.backbone import Backbone
from mbv2det.weights.share_file import has_header, load_weights
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.torchvision import read_torchvision


def read_model(path: Path) -> WeightsSource:
    """Reads a whole model from a share file or a checkpoint of this toolkit.

    Raises:
        ConfigError: If the file is missing, damaged, or not one of this toolkit.
    """
    state, info = load_weights(path)
    return WeightsSource(str(path), state, info, name_of=lambda name: name)


def read_backbone(path: Path) -> WeightsSource:
    """Reads weights that hold a backbone: a file of this toolkit, or torchvision's state dict.

    Nothing in the file is executed.

    Args:
        path: A share file or checkpoint of this toolkit, a file of torchvision's weights, or the
            name of torchvision's weights.

    Raises:
        ConfigError: If it is none of these, or damaged.
    """
    return read_model(path) if has_header(path) else read_torchvision(str(path))


def load_backbone_weights(backbone: Backbone, source: WeightsSource) -> None:
    """Loads weights into a backbone, in place.

    Tensors of the source that belong to later layers or to heads are ignored.

    Raises:
        MismatchError: If a tensor is missing, or of the wrong shape or type.
    """
    expected = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(source.backbone(expected))
