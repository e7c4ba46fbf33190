"""Weights of other libraries: understood, renamed, accounted for tensor by tensor."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights

from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.errors import ConfigError
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.weights.files import WeightsInfo, load_tensors

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
_COUNTER = ".num_batches_tracked"
_PLACE = re.compile(
    r"backbone\.layers\.layer_(\d+)\.(?:(expand|depthwise|project)\.)?(conv|norm)\.(\w+)"
)


# Where a classifier's last layer stands in our models.
CLASSIFIER = "heads.classification.classifier.linear"


@dataclass(frozen=True)
class Mismatch:
    """One tensor that has no counterpart.

    Attributes:
        problem: `missing` in the source, `unexpected` there, `of another shape` or `type`.
        name: Theirs.
        expected: Shape, or where in our network it belongs; empty if nowhere.
        got: Shape; empty where missing.
    """

    problem: str
    name: str
    expected: str
    got: str


class MismatchError(ConfigError):
    """Tensors are missing, unexpected or of another shape.

    Attributes:
        rows: All of them.
    """

    def __init__(self, source: str, rows: Sequence[Mismatch]) -> None:
        counts = Counter(row.problem for row in rows)
        found = ", ".join(f"{count} {problem}" for problem, count in counts.items())
        first = rows[0]
        super().__init__(
            f"{source}: expected every tensor to have its place, got {found}; first: {first.name} "
            f"(expected {first.expected or 'none'}, got {first.got or 'none'})"
        )
        self.rows = tuple(rows)


@dataclass(frozen=True)
class Foreign:
    """Another library's weights, and the network of ours that they are for.

    Attributes:
        source: Where they come from, for messages.
        tensors: By their names; layout and meaning of the values are ours already.
        info: The network, its preprocessing and labels.
        name_of: Their name of a tensor of ours.
        notes: What was chosen, changed or left out on reading, a line each.
        reference: The source's own network, from normalised images to what our head says of them:
            logits, of a detector with the deltas behind them in the last dimension; without a head
            the last feature. None where its library is not there.
    """

    source: str
    tensors: Mapping[str, Tensor]
    info: WeightsInfo
    name_of: Callable[[str], str]
    notes: Sequence[str] = ()
    reference: Callable[[Tensor], Tensor] | None = None

    def renamed(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Every tensor under our name; batch norm's counters start at 0 where there are none.

        Args:
            expected: Shapes of our network's tensors by name.

        Raises:
            MismatchError: If a tensor is missing, left over or of another shape.
        """
        rows: list[Mismatch] = []
        found: dict[str, Tensor] = {}
        used: set[str] = set()
        for ours, shape in expected.items():
            theirs = self.name_of(ours)
            used.add(theirs)
            if theirs in self.tensors:
                found[ours] = self.tensors[theirs]
                rows += _differences(theirs, found[ours], shape, is_counter=ours.endswith(_COUNTER))
            elif ours.endswith(_COUNTER):
                found[ours] = torch.zeros(shape, dtype=torch.int64)
            else:
                rows.append(Mismatch("missing", theirs, f"{tuple(shape)} for {ours}", ""))
        for theirs in sorted(self.tensors.keys() - used):
            got = str(tuple(self.tensors[theirs].shape))
            rows.append(Mismatch("unexpected", theirs, "", got))
        if rows:
            raise MismatchError(self.source, rows)
        return found

    def backbone(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """The tensors of a backbone of ours, which may end before theirs.

        Args:
            expected: Shapes of the backbone's tensors by name.

        Raises:
            MismatchError: If one is missing or of another shape.
        """
        whole = {ours: _name_in_a_model(ours) for ours in expected}
        names = {self.name_of(name) for name in whole.values()}
        part = Foreign(
            self.source,
            {theirs: tensor for theirs, tensor in self.tensors.items() if theirs in names},
            self.info,
            self.name_of,
        )
        found = part.renamed({whole[ours]: shape for ours, shape in expected.items()})
        return {ours: found[name] for ours, name in whole.items()}


def _differences(
    name: str, found: Tensor, shape: torch.Size, is_counter: bool
) -> Iterator[Mismatch]:
    """What keeps a tensor from taking its place."""
    if found.shape != shape:
        yield Mismatch("of another shape", name, str(tuple(shape)), str(tuple(found.shape)))
    if not (is_counter or found.is_floating_point()):
        got = str(found.dtype).removeprefix("torch.")
        yield Mismatch("of another type", name, "floating point", got)


def _name_in_a_model(ours: str) -> str:
    """Name of a backbone's tensor where a whole model has it: its classifier is a head there."""
    classifier = ours.startswith("classifier.")
    return f"heads.classification.{ours}" if classifier else f"backbone.{ours}"


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
    return tuple(specs[f"layer_{layer}"].channels for layer in range(1, 19))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file or one of `torch.save`; nothing is executed.

    Raises:
        ConfigError: If the file is missing, damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ConfigError(f"{path}: expected a file, found none")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ConfigError(f"{path}: not a whole safetensors file ({error})") from None
    if path.suffix == ".npz":
        raise ConfigError(f"{path}: expected a file of torch.save or safetensors, got .npz (tf's)")
    content = load_tensors(path)
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ConfigError(
                f"{path}: expected a state dict of tensors by name, got "
                f"{type(value).__name__} under {name!r}"
            )
    return content


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
