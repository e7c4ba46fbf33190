"""The architecture of some tensors, inferred from their names and shapes.

The width multiplier follows from the channels of the layers, the classes from the rows of the last
layer. The importers, which rename tensors, also parse the names of our own tensors with this file.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights

from mbv2det.backbones.feature import Feature
from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.model_config import HeadConfig
from mbv2det.tasks import ClassificationTask

# Name of a classifier's last layer in our models.
CLASSIFIER = "heads.classification.linear"
# The published widths first: other widths may round to the same channels.
_WIDTHS = (1.0, 1.4, 1.3, 0.75, 0.5, 0.35, *(round(0.05 * k, 2) for k in range(2, 41)))
# Prefix of the tensor names of each FORMAT, for hints in error messages.
_NAME_PREFIXES = {
    "torchvision": "features.",
    "timm": "conv_stem.",
    "hf": "mobilenet_v2.",
    "tf": "Mobilenet",
    "ckpt": "backbone.layers.",
}
_TENSOR_PATH = re.compile(
    r"backbone\.layers\.layer_(\d+)\.(?:(expand|depthwise|project)\.)?(conv|norm)\.(\w+)"
)


@dataclass(frozen=True)
class TensorPath:
    """The parts of a tensor's name in our MobileNetV2's layers.

    Attributes:
        layer: Number of the layer, 1 to 19.
        part: `expand`, `depthwise` or `project`; empty for a layer of a single convolution.
        kind: `conv` or `norm`.
        tensor: `weight`, `bias`, `running_mean`, ...
    """

    layer: int
    part: str
    kind: str
    tensor: str

    @classmethod
    def of(cls, name: str) -> "TensorPath | None":
        """Parses a tensor's name; returns None for a tensor outside MobileNetV2's layers."""
        match = _TENSOR_PATH.fullmatch(name)
        return None if match is None else cls(int(match[1]), match[2] or "", match[3], match[4])


def mobilenet_v2_width(
    tensors: Mapping[str, Tensor], name_of: Callable[[str], str], source: str
) -> float:
    """Returns the width multiplier of MobileNetV2's weights, from the channels of its layers.

    Args:
        tensors: Tensors by their names in the source.
        name_of: Function from the name of a tensor of our network to its name in the source.
        source: File, folder or name of the weights, for messages.

    Raises:
        ConfigError: If a layer is missing, or no width multiplier gives its channels.
    """
    parts = {layer: "" if layer == 1 else ".project" for layer in range(1, 19)}
    names = [name_of(f"backbone.layers.layer_{k}{part}.conv.weight") for k, part in parts.items()]
    return width_of(tensors, names, layer_channels, "MobileNetV2", source)


def width_of(
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    channels_at: Callable[[float], tuple[int, ...]],
    network: str,
    source: str,
) -> float:
    """Returns the width multiplier at which a network has the channels of some weights.

    Args:
        tensors: Tensors by their names in the source.
        names: Names of the convolution weights whose output channels are compared.
        channels_at: Function from a width multiplier to the network's output channels, in the order
            of `names`.
        network: Name of the network, for messages.
        source: File, folder or name of the weights, for messages.

    Raises:
        ConfigError: If a weight is missing, or no width multiplier gives such channels.
    """
    for name in names:
        if name not in tensors:
            first = next(iter(tensors), "none")
            formats = [f for f, prefix in _NAME_PREFIXES.items() if first.startswith(prefix)]
            hint = f": is it of FORMAT {formats[0]}?" if formats else ""
            raise ConfigError(
                f"{source}: expected {network}, got no tensor {name!r} "
                f"(first name: {first!r}){hint}"
            )
    channels = tuple(num_outputs(tensors, name, source) for name in names)
    for width_mult in _WIDTHS:
        if channels == channels_at(width_mult):
            return width_mult
    raise ConfigError(f"{source}: expected the channels of a {network}, got {list(channels)}")


def num_outputs(tensors: Mapping[str, Tensor], name: str, source: str) -> int:
    """Returns the number of outputs of the layer that a weight or bias belongs to.

    Raises:
        ConfigError: If the tensor is a scalar or empty.
    """
    shape = tuple(tensors[name].shape)
    if not shape or not shape[0]:
        raise ConfigError(f"{source}: {name}: expected a row for each output, got shape {shape}")
    return shape[0]


@cache  # building a network is slow, even without memory for its tensors
def layer_channels(width_mult: float) -> tuple[int, ...]:
    """Returns the output channels of MobileNetV2's layers 1 to 18."""
    with torch.device("meta"):
        specs = MobileNetV2(width_mult).feature_specs
    return tuple(specs[Feature(f"layer_{layer}")].channels for layer in range(1, 19))


def classification_head(
    num_classes: int | None,
) -> tuple[dict[str, HeadConfig], dict[str, LabelMap]]:
    """Returns the heads and label maps of a classifier.

    Args:
        num_classes: Number of outputs of the classifier; None for weights without a classifier,
            which have neither heads nor label maps.
    """
    if num_classes is None:
        return {}, {}
    task = ClassificationTask.name
    return {task: ClassifierConfig()}, {task: imagenet_label_map(num_classes)}


def imagenet_label_map(num_classes: int) -> LabelMap:
    """Returns ImageNet's label map, with background as class 0 where there are 1001 classes.

    Classifiers with other numbers of classes get the names "class 0", "class 1", ...
    """
    names = list(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
    if num_classes == len(names) + 1:
        names = [BACKGROUND, *names]
    if num_classes != len(names):
        names = class_names(num_classes)
    return unique_label_map(names)


def class_names(num_classes: int, first: int = 0) -> list[str]:
    """Returns names for classes without names: "class N", counted from `first`."""
    return [f"class {label}" for label in range(first, first + num_classes)]


def unique_label_map(names: Sequence[str]) -> LabelMap:
    """Returns a label map in the order of the names.

    The label is appended to names that appear more than once: ImageNet has two classes "crane", a
    bird and a machine.
    """
    counts = Counter(names)
    unique = [n if counts[n] == 1 else f"{n} ({label})" for label, n in enumerate(names)]
    return LabelMap.of_masks(unique)
