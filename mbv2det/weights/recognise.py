"""What foreign tensors are: places in MobileNetV2, widths by channels, classes by their number."""

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
from mbv2det.config import ClassificationHeadConfig, HeadsConfig
from mbv2det.errors import ConfigError
from mbv2det.labels import BACKGROUND, LabelMap

# Where a classifier's last layer stands in our models.
CLASSIFIER = "heads.classification.linear"
# The published widths first: others may round to the same channels.
_WIDTHS = (1.0, 1.4, 1.3, 0.75, 0.5, 0.35, *(round(0.05 * k, 2) for k in range(2, 41)))
# How the tensors of each format begin, for hints.
_FIRST_NAMES = {
    "torchvision": "features.",
    "timm": "conv_stem.",
    "hf": "mobilenet_v2.",
    "tf": "Mobilenet",
    "ckpt": "backbone.layers.",
}
_PLACE = re.compile(
    r"backbone\.layers\.layer_(\d+)\.(?:(expand|depthwise|project)\.)?(conv|norm)\.(\w+)"
)


@dataclass(frozen=True)
class Place:
    """Where in MobileNetV2 a tensor of ours stands.

    Attributes:
        layer: 1 to 19.
        part: `expand`, `depthwise`, `project`, or empty where the layer is one convolution.
        kind: `conv` or `norm`.
        tensor: `weight`, `bias`, `running_mean`, ...
    """

    layer: int
    part: str
    kind: str
    tensor: str

    @classmethod
    def of(cls, name: str) -> "Place | None":
        """The place that a name speaks of, or None for a tensor outside MobileNetV2's layers."""
        found = _PLACE.fullmatch(name)
        return None if found is None else cls(int(found[1]), found[2] or "", found[3], found[4])


def mobilenet_v2_width(
    tensors: Mapping[str, Tensor], name_of: Callable[[str], str], source: str
) -> float:
    """The width multiplier of weights, by the channels of their layers.

    Raises:
        ConfigError: If a layer is not there, or no width gives such channels.
    """
    parts = {layer: "" if layer == 1 else ".project" for layer in range(1, 19)}
    names = [name_of(f"backbone.layers.layer_{k}{part}.conv.weight") for k, part in parts.items()]
    return width_of(tensors, names, layer_channels, "MobileNetV2", source)


def width_of(
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    channels: Callable[[float], tuple[int, ...]],
    network: str,
    source: str,
) -> float:
    """The width multiplier whose network has the channels of some weights.

    Args:
        tensors: By their names.
        names: Of the weights that are looked at.
        channels: Of the network at a width, in the order of the names.
        network: Its name, for messages.
        source: Where the tensors come from, for messages.

    Raises:
        ConfigError: If a weight is not there, or no width gives such channels.
    """
    for name in names:
        if name not in tensors:
            first = next(iter(tensors), "none")
            near = [format for format, start in _FIRST_NAMES.items() if first.startswith(start)]
            hint = f": is it of FORMAT {near[0]}?" if near else ""
            raise ConfigError(
                f"{source}: expected {network}, got no tensor {name!r} "
                f"(first name: {first!r}){hint}"
            )
    found = tuple(num_outputs(tensors, name, source) for name in names)
    for width_mult in _WIDTHS:
        if found == channels(width_mult):
            return width_mult
    raise ConfigError(f"{source}: expected the channels of a {network}, got {list(found)}")


def num_outputs(tensors: Mapping[str, Tensor], name: str, source: str) -> int:
    """Outputs of the layer that a weight or bias belongs to: its first dimension.

    Raises:
        ConfigError: If the tensor has none.
    """
    shape = tuple(tensors[name].shape)
    if not shape or not shape[0]:
        raise ConfigError(f"{source}: {name}: expected a row an output, got shape {shape}")
    return shape[0]


@cache  # building a network takes a while, even one of shapes alone
def layer_channels(width_mult: float) -> tuple[int, ...]:
    """Channels of MobileNetV2's layers 1 to 18."""
    with torch.device("meta"):
        specs = MobileNetV2(width_mult).feature_specs
    return tuple(specs[Feature(f"layer_{layer}")].channels for layer in range(1, 19))


def imagenet_labels(count: int) -> LabelMap:
    """Labels of a classifier: ImageNet's, with background in front where there are 1001 of them.

    Classifiers of other data sets get numbered names.
    """
    names = list(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
    if count == len(names) + 1:
        names = [BACKGROUND, *names]
    if count != len(names):
        names = [f"class {label}" for label in range(count)]
    return numbered(names)


def numbered(names: Sequence[str]) -> LabelMap:
    """Labels in the order of their names; names that stand for several get the number behind."""
    seen = Counter(names)  # ImageNet calls a bird and a machine "crane"
    return LabelMap.of_masks([n if seen[n] == 1 else f"{n} ({i})" for i, n in enumerate(names)])


def classification(count: int | None) -> tuple[HeadsConfig, dict[str, LabelMap]]:
    """Head and labels of a classifier of so many classes; neither for None."""
    if count is None:
        return HeadsConfig(), {}
    heads = HeadsConfig(classification=ClassificationHeadConfig())
    return heads, {"classification": imagenet_labels(count)}
