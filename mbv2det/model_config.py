"""The configuration that travels with weights: architecture, and how outputs are postprocessed.

How a setting behaves when weights and configuration disagree is declared once, at its field:

- `shape(...)`: the setting decides which tensors the backbone has. It is stored with the weights;
  another value in the configuration is an error, since the weights would not fit.
- `carried(...)`: the setting decides what the weights compute. It is stored with the weights, and
  the stored value is used unless the user overrides it.
- a plain default: the setting decides how to train. The value in the configuration is used.
- `run_only(...)`: as a plain default, but it refers to the data of a run: it is not stored.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
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
_RUN_ONLY = "run_only"


def shape(default: Any) -> Any:
    """Declares a field that decides which tensors the network has."""
    return field(default=default, metadata={_ROLE: _SHAPE})


def carried(default: Any) -> Any:
    """Declares a field that decides what the weights compute."""
    return field(default=default, metadata={_ROLE: _CARRIED})


def run_only(default: Any) -> Any:
    """Declares a field that decides how a run trains, and that weights do not keep."""
    return field(default=default, metadata={_ROLE: _RUN_ONLY})


def stored_settings(config: Any) -> dict[str, Any]:
    """Returns the values of the fields that are stored with weights, by name."""
    dropped = _settings(config, _RUN_ONLY)
    return {name: value for name, value in asdict(config).items() if name not in dropped}


def shape_settings(config: Any) -> dict[str, Any]:
    """Returns the values of the fields that a configuration declares with `shape`, by name."""
    return _settings(config, _SHAPE)


def carried_settings(config: Any) -> dict[str, Any]:
    """Returns the values of the fields that a configuration declares with `carried`, by name."""
    return _settings(config, _CARRIED)


def _settings(config: Any, role: str) -> dict[str, Any]:
    names = [f.name for f in fields(config) if f.metadata.get(_ROLE) == role]
    return {name: getattr(config, name) for name in names}


def expect(key: str, value: object, valid: bool, expected: str) -> None:
    """Checks a setting.

    Args:
        key: Dotted name of the setting.
        value: Value of the setting.
        valid: Whether the value is valid.
        expected: Description of the valid values.

    Raises:
        ConfigError: If the value is not valid.
    """
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
            segmentation. SSDLite reads the same cells at every output stride.
        padding: Padding rule of the convolutions: symmetric, or same as in TensorFlow.
        norm_eps: Epsilon of batch norm; 1e-5 in torchvision's weights.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
        scale_last_layer: Whether width_mult below 1 also scales the last 1280 channels
            (mobilenet_v2 only).
        bottleneck: Activation after the projection of a block: linear, or relu6 for comparison
            (mobilenet_v2 only).
        shortcut: Layers that the shortcut of a block connects: bottleneck, or expansion or none for
            comparison (mobilenet_v2 only).
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
    """Settings of a head, with the method that builds its network.

    There is one subclass per architecture, in the file of its network. It declares `name` as a
    `Literal` of the values of `heads.<task>.name` that select it.

    Attributes:
        loss_weight: Weight of the loss of the task in the sum over the tasks.
        class_weights: Weights of the classes in the class loss: none, balanced (by the square root
            of their rarity in the training split), or {name: weight}, where classes that are not
            named have the weight 1.
        norm_eps: Epsilon of batch norm.
        norm_momentum: Weight of the newest batch in batch norm's running statistics.
    """

    name: str
    loss_weight: float = 1.0
    class_weights: Literal["none", "balanced"] | dict[str, float] = run_only("none")
    norm_eps: float = carried(1e-5)
    norm_momentum: float = 0.03

    @abstractmethod
    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the features that the head reads.

        Args:
            available: The backbone's features for each kind of head.
        """

    @abstractmethod
    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> nn.Module:
        """Builds the network of the head, with initial weights.

        Args:
            backbone: Backbone that returns the head's `features`.
            width_mult: Multiplier of the backbone's channel counts.
            label_map: Classes to predict.
        """

    def logit_names(self, label_map: LabelMap) -> tuple[str, ...]:
        """Returns the name of the class of each class logit, in order."""
        return label_map.names


@dataclass(frozen=True)
class EvalConfig:
    """Postprocessing, and augmentation at test time.

    Attributes:
        score_threshold: Lowest score of a detection.
        nms_iou: Overlap (IoU) with a better box of the same class above which a box is suppressed.
        max_detections: Largest number of detections per image.
        scales: Scales of the input at which segmentation predicts an image; the probabilities are
            averaged.
        flip: Whether segmentation also predicts the mirrored image.
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
    """All settings that are needed to build a network.

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


def head_names(head_class: type[HeadConfig]) -> Sequence[str]:
    """Returns the values of `heads.<task>.name` that select a class of head settings."""
    return get_args(head_class.__annotations__["name"])
