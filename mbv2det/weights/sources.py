"""The files that a training or a backbone can start from."""

from pathlib import Path

from mbv2det.backbones.backbone import Backbone
from mbv2det.weights.files import has_header, load_weights
from mbv2det.weights.foreign import Foreign
from mbv2det.weights.torchvision import read_torchvision


def read_model(path: Path) -> Foreign:
    """A weights file or a checkpoint of this toolkit.

    Raises:
        ConfigError: If it is missing, damaged or foreign.
    """
    state, info = load_weights(path)
    return Foreign(str(path), state, info, name_of=lambda ours: ours)


def read_backbone(path: Path) -> Foreign:
    """A weights file of this toolkit, of whose network the backbone is wanted, or torchvision's.

    Raises:
        ConfigError: If it is neither, or damaged.
    """
    return read_model(path) if has_header(path) else read_torchvision(str(path))


def fill_backbone(backbone: Backbone, source: Foreign) -> None:
    """Loads weights into a backbone; layers of the source behind its last are left.

    Raises:
        MismatchError: If a tensor is missing or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(source.backbone(expected))
