"""The configuration that travels with weights: architecture, and how outputs are postprocessed.

How a setting behaves when weights and configuration disagree is declared once, at its field:

- `shape(...)`: it decides which tensors the backbone has. Weights bring it along; another value is
  an error, since the weights would not fit.
- `carried(...)`: it decides what the weights compute. Weights bring it along, unless the user
  overrides it.
- a plain default: it says how to train. The configuration decides.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from torch import nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature, HeadFeatures
from mbv2det.backbones.layers import Padding
from mbv2det.backbones.mobilenet_v2 import Bottleneck, Shortcut
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap

_ROLE = "role"
_SHAPE = "shape"
_CARRIED = "carried"


def shape(default: Any) -> Any:
    """A field that decides which tensors the network has."""
    return field(default=default, metadata={_ROLE: _SHAPE})


def carried(default: Any) -> Any:
    """A field that decides what the weights compute."""
    return field(default=default, metadata={_ROLE: _CARRIED})


def shape_settings(config: Any) -> dict[str, Any]:
    """Values of the fields of a configuration that were declared with `shape`, by name."""
    return _settings(config, _SHAPE)


def carried_settings(config: Any) -> dict[str, Any]:
    """Values of the fields of a configuration that were declared with `carried`, by name."""
    return _settings(config, _CARRIED)


def _settings(config: Any, role: str) -> dict[str, Any]:
    names = [f.name for f in fields(config) if f.metadata.get(_ROLE) == role]
    return {name: getattr(config, name) for name in names}


def expect(key: str, value: object, valid: bool, expected: str) -> None:
    """Raises a `ConfigError` that names the key, what was expected and what was got."""
    if not valid:
        raise ConfigError(f"{key}: expected {expected}, got {value}")


# Settings that only some backbones have.
_OPTIONS_OF_BACKBONE = {
    "mobilenet_v2": (
        "width_mult",
        "padding",
        "scale_last_layer",
        "bottleneck",
        "shortcut",
        "zero_init_residual",
    ),
    "mobilenet_v1": ("width_mult", "padding"),
    "resnet50": (),
    "resnet101": (),
}


@dataclass(frozen=True)
class BackboneConfig:
    """Architecture of the backbone.

    Attributes:
        name: mobilenet_v2, or a network that its paper compares it with: mobilenet_v1, resnet50,
            resnet101.
        width_mult: Multiplier of the channel counts (MobileNets only).
        output_stride: Input pixels per cell of the last feature map: 32, or 16 or 8 for
            segmentation. SSDLite reads the same cells whatever the output stride.
        padding: Padding rule of the convolutions: symmetric, or same as in TensorFlow.
        norm_eps: Epsilon of batch norm; 1e-5 in torchvision's weights.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
        scale_last_layer: Whether width_mult below 1 also scales the last 1280 channels
            (mobilenet_v2 only).
        bottleneck: Activation after the projection of a block: linear, or relu6 to measure what the
            linear bottleneck is good for (mobilenet_v2 only).
        shortcut: What the shortcut of a block connects: bottlenecks, expansions, or none, to
            measure what it is good for (mobilenet_v2 only).
        zero_init_residual: Whether blocks with a shortcut start as the identity, which speeds up
            the first epochs (mobilenet_v2 only).
    """

    name: Literal["mobilenet_v2", "mobilenet_v1", "resnet50", "resnet101"] = shape("mobilenet_v2")
    width_mult: float = shape(1.0)
    output_stride: Literal[8, 16, 32] = 32
    padding: Padding = carried("symmetric")
    norm_eps: float = carried(1e-5)
    norm_momentum: float = 0.03
    scale_last_layer: bool = shape(False)
    bottleneck: Bottleneck = shape("linear")
    shortcut: Shortcut = shape("bottleneck")
    zero_init_residual: bool = True

    def __post_init__(self) -> None:
        expect("backbone.width_mult", self.width_mult, self.width_mult > 0, "above 0")
        known = {name for names in _OPTIONS_OF_BACKBONE.values() for name in names}
        for name in known - set(self.options):
            value, default = getattr(self, name), getattr(BackboneConfig, name)
            expect(f"backbone.{name}", value, value == default, f"{default} for {self.name}")

    @property
    def options(self) -> dict[str, Any]:
        """The settings that this backbone has and some others lack, by name."""
        return {name: getattr(self, name) for name in _OPTIONS_OF_BACKBONE[self.name]}


@dataclass(frozen=True, kw_only=True)
class HeadConfig(metaclass=ABCMeta):
    """Settings of a head, and the object that builds it.

    A subclass belongs to one architecture and stands in the file of its network. `name` is declared
    by the subclass as a `Literal` of the values of `heads.<task>.name` that select it.

    Attributes:
        loss_weight: Weight of the loss of the task in the sum over the tasks.
        norm_eps: Epsilon of batch norm.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
    """

    name: str
    loss_weight: float = 1.0
    norm_eps: float = carried(1e-5)
    norm_momentum: float = 0.03

    @abstractmethod
    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Features that the head reads, among those that the backbone offers to heads."""

    @abstractmethod
    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> nn.Module:
        """The network of the head, with fresh weights.

        Args:
            backbone: Backbone that gives the features; built with those of `features`.
            width_mult: Multiplier of the backbone's channel counts.
            label_map: Classes to predict.
        """

    def logit_names(self, label_map: LabelMap) -> tuple[str, ...]:
        """Name of the class that each class logit stands for, in order."""
        return label_map.names


@dataclass(frozen=True)
class EvalConfig:
    """Postprocessing, and augmentation at test time.

    Attributes:
        score_threshold: Lowest score of a detection.
        nms_iou: Overlap (IoU) with a better box of the same class above which a box is suppressed.
        max_detections: Largest number of detections per image.
        scales: Factors of the input size at which segmentation sees an image; probabilities are
            averaged.
        flip: Whether segmentation also sees the mirrored image.
    """

    score_threshold: float = 0.001
    nms_iou: float = 0.6
    max_detections: int = 100
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        for key in ("score_threshold", "nms_iou"):
            value = getattr(self, key)
            expect(f"eval.{key}", value, 0 <= value <= 1, "from 0 to 1")
        expect("eval.max_detections", self.max_detections, self.max_detections >= 1, "at least 1")
        valid = len(self.scales) > 0 and min(self.scales) > 0
        expect("eval.scales", self.scales, valid, "scales above 0")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to rebuild a network.

    Attributes:
        backbone: Architecture of the backbone.
        heads: Configuration of each head by task name; empty for a backbone alone.
    """

    backbone: BackboneConfig = BackboneConfig()
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a head."""
        return tuple(self.heads)


def head_names(kind: type[HeadConfig]) -> Sequence[str]:
    """Values of `heads.<task>.name` that select a head configuration."""
    return get_args(kind.__annotations__["name"])
