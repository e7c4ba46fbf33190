"""Importer of torchvision's MobileNetV2 and ResNet: state dicts, or names of its weight enums."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

from torch import Tensor, nn
from torchvision.models import get_weight, mobilenet_v2, resnet50, resnet101

from mbv2det.errors import ConfigError
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.architecture import (
    CLASSIFIER,
    TensorPath,
    classification_head,
    mobilenet_v2_width,
    num_outputs,
)
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.state_dict import read_state_dict

_SIZE = (224, 224)
_FILES = (".pth", ".pt", ".bin", ".safetensors")
_NOTE = (
    "preprocessing: the whole image is stretched to 224 x 224; torchvision scales the shorter "
    "side and cuts out the middle"
)


@dataclass(frozen=True)
class _Network:
    """A network of torchvision.

    Attributes:
        backbone: Our configuration of its backbone.
        name_of: Function from the name of a tensor of our network to torchvision's name.
        classifier: torchvision's name of the last layer.
        build: Builder of torchvision's network, with the argument `num_classes`.
    """

    backbone: BackboneConfig
    name_of: Callable[[str], str]
    classifier: str
    build: Callable[..., nn.Module]


def read_torchvision(source: str) -> WeightsSource:
    """Reads torchvision's weights from a file of a state dict, or by name.

    Args:
        source: A file, or a name such as `MobileNet_V2_Weights.IMAGENET1K_V2`, whose weights are
            downloaded.

    Raises:
        ConfigError: If there is no such file or name, or it is another network.
    """
    is_file = Path(source).suffix in _FILES or Path(source).exists()
    tensors = read_state_dict(Path(source)) if is_file else _download(source)
    network = _network_of(tensors, source)
    bias = f"{network.classifier}.bias"
    num_classes = num_outputs(tensors, bias, source) if bias in tensors else None
    heads, label_maps = classification_head(num_classes)
    reference = None
    if num_classes is not None:
        reference = partial(_run, tensors, partial(network.build, num_classes=num_classes))
    info = WeightsInfo(
        model=ModelConfig(network.backbone, heads),
        preprocess=PreprocessSpec(_SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        label_maps=label_maps,
    )
    return WeightsSource(source, tensors, info, network.name_of, [_NOTE], reference)


def _network_of(tensors: Mapping[str, Tensor], source: str) -> _Network:
    """Returns the network that a state dict belongs to.

    Raises:
        ConfigError: If this toolkit does not build it.
    """
    if "layer3.0.conv1.weight" not in tensors:
        width_mult = mobilenet_v2_width(tensors, mobilenet_v2_name, source)
        build = partial(mobilenet_v2, width_mult=width_mult)
        backbone = BackboneConfig(width_mult=width_mult)
        return _Network(backbone, mobilenet_v2_name, "classifier.1", build)
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("layer3.")})
    if blocks == 6 and "layer3.0.conv3.weight" in tensors:
        return _Network(BackboneConfig(name="resnet50"), resnet_name, "fc", resnet50)
    if blocks == 23:
        return _Network(BackboneConfig(name="resnet101"), resnet_name, "fc", resnet101)
    raise ConfigError(
        f"{source}: expected mobilenet_v2, resnet50 or resnet101, got a ResNet with {blocks} "
        "blocks in layer3"
    )


def _run(state: Mapping[str, Tensor], build: Callable[[], nn.Module], images: Tensor) -> Tensor:
    """Runs torchvision's own network on normalised images."""
    network = build().eval()
    network.load_state_dict(state)
    return network(images)


def resnet_name(name: str) -> str:
    """Returns torchvision's name of a tensor of our ResNet, which wraps torchvision's."""
    inner = name.removeprefix("backbone.layers.").removeprefix("stem.")
    return inner.replace(CLASSIFIER, "fc")


def mobilenet_v2_name(name: str) -> str:
    """Returns torchvision's name of a tensor of our MobileNetV2."""
    path = TensorPath.of(name)
    if path is None:
        return name.replace(CLASSIFIER, "classifier.1")
    block = f"features.{path.layer - 1}"
    is_norm = path.kind == "norm"
    if not path.part:
        return f"{block}.{int(is_norm)}.{path.tensor}"
    parts = ["expand", "depthwise", "project"] if path.layer > 2 else ["depthwise", "project"]
    position = parts.index(path.part)
    if path.part == "project":
        return f"{block}.conv.{position + is_norm}.{path.tensor}"
    return f"{block}.conv.{position}.{int(is_norm)}.{path.tensor}"


def _download(name: str) -> dict[str, Tensor]:
    """Returns the state dict of named weights, from torch's cache or the network.

    Raises:
        ConfigError: If there is no such name, or it cannot be downloaded.
    """
    try:
        weights = get_weight(name)
    except (ValueError, AttributeError, KeyError):
        raise ConfigError(
            f"SOURCE: expected a file ({', '.join(_FILES)}) or a name such as "
            f"MobileNet_V2_Weights.IMAGENET1K_V2, got {name}"
        ) from None
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except UnpicklingError:
        raise ConfigError(
            f"SOURCE: {name}: expected a file of tensors in torch's cache, got other objects or "
            "a damaged file; nothing in it was executed; remove it from the cache"
        ) from None
    except (URLError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"SOURCE: {name}: cannot be downloaded from {weights.url} ({error}); download it "
            "elsewhere and give the file"
        ) from None
