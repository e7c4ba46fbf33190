"""torchvision's MobileNetV2 and ResNet: state dicts, and weights by the names of their enums."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

from torch import Tensor, nn
from torchvision.models import get_weight, mobilenet_v2, resnet50, resnet101

from mbv2det.config import BackboneConfig, ModelConfig
from mbv2det.errors import ConfigError
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.files import WeightsInfo, read_state_dict
from mbv2det.weights.foreign import Foreign
from mbv2det.weights.recognise import (
    CLASSIFIER,
    Place,
    classification,
    mobilenet_v2_width,
    num_outputs,
)

_SIZE = (224, 224)
_FILES = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class _Network:
    """One of torchvision's networks.

    Attributes:
        backbone: Ours that it is.
        name_of: Its name of a tensor of ours.
        classifier: Name of its last layer.
        build: The network itself, by `num_classes`.
    """

    backbone: BackboneConfig
    name_of: Callable[[str], str]
    classifier: str
    build: Callable[..., nn.Module]


def read_torchvision(source: str) -> Foreign:
    """Torchvision's weights, from a file of a state dict or by name.

    Args:
        source: A file, or a name such as `MobileNet_V2_Weights.IMAGENET1K_V2`, which is downloaded.

    Raises:
        ConfigError: If there is no such file or name, or it is another network.
    """
    is_file = Path(source).suffix in _FILES or Path(source).exists()
    tensors = read_state_dict(Path(source)) if is_file else _download(source)
    network = _recognised(tensors, source)
    bias = f"{network.classifier}.bias"
    count = num_outputs(tensors, bias, source) if bias in tensors else None
    heads, labels = classification(count)
    reference = None
    if count is not None:
        reference = partial(_run, tensors, partial(network.build, num_classes=count))
    info = WeightsInfo(
        model=ModelConfig(network.backbone, heads),
        preprocess=PreprocessSpec(_SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        labels=labels,
    )
    notes = [
        "preprocessing: the whole image is stretched to 224 x 224; torchvision scales the shorter "
        "side and cuts out the middle"
    ]
    return Foreign(source, tensors, info, network.name_of, notes, reference)


def _recognised(tensors: Mapping[str, Tensor], source: str) -> _Network:
    """Which network the tensors are of.

    Raises:
        ConfigError: If of none.
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
    """Torchvision's own network on normalised images."""
    network = build().eval()
    network.load_state_dict(state)
    return network(images)


def resnet_name(ours: str) -> str:
    """Its name of a tensor of our ResNet, which wraps it."""
    inside = ours.removeprefix("backbone.layers.").removeprefix("stem.")
    return inside.replace(CLASSIFIER, "fc")


def mobilenet_v2_name(ours: str) -> str:
    """Its name of a tensor of our MobileNetV2."""
    place = Place.of(ours)
    if place is None:
        return ours.replace(CLASSIFIER, "classifier.1")
    block = f"features.{place.layer - 1}"
    if not place.part:
        return f"{block}.{0 if place.kind == 'conv' else 1}.{place.tensor}"
    parts = ["expand", "depthwise", "project"] if place.layer > 2 else ["depthwise", "project"]
    position = parts.index(place.part)
    if place.part == "project":
        return f"{block}.conv.{position + (place.kind == 'norm')}.{place.tensor}"
    return f"{block}.conv.{position}.{0 if place.kind == 'conv' else 1}.{place.tensor}"


def _download(name: str) -> dict[str, Tensor]:
    """The state dict behind a name, from the library's cache or the network.

    Raises:
        ConfigError: If there is no such name or no network.
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
            f"SOURCE: {name}: the file in torch's cache holds other objects than tensors, or is "
            "damaged; nothing in it was executed: remove it"
        ) from None
    except (URLError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"SOURCE: {name}: cannot be downloaded from {weights.url} ({error}); download it "
            "elsewhere and give the file"
        ) from None
