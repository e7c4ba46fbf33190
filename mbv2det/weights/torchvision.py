"""torchvision's MobileNetV2: state dicts, and its weights by the name of their enum."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.error import URLError

from torch import Tensor
from torchvision.models import get_weight, mobilenet_v2

from mbv2det.config import BackboneConfig, ClassificationHeadConfig, HeadsConfig, ModelConfig
from mbv2det.errors import ConfigError
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.files import WeightsInfo
from mbv2det.weights.foreign import (
    Foreign,
    Place,
    imagenet_labels,
    mobilenet_v2_width,
    read_state_dict,
)

_SIZE = (224, 224)
_FILES = (".pth", ".pt", ".bin", ".safetensors")


def read_torchvision(source: str) -> Foreign:
    """Torchvision's weights, from a file of a state dict or by name.

    Args:
        source: A file, or a name such as `MobileNet_V2_Weights.IMAGENET1K_V2`, which is downloaded.

    Raises:
        ConfigError: If there is no such file or name, or it is not MobileNetV2.
    """
    is_file = Path(source).suffix in _FILES or Path(source).exists()
    tensors = read_state_dict(Path(source)) if is_file else _download(source)
    width_mult = mobilenet_v2_width(tensors, torchvision_name, source)
    classifier = tensors.get("classifier.1.bias")
    heads, labels = HeadsConfig(), {}
    if classifier is not None:
        heads = HeadsConfig(classification=ClassificationHeadConfig())
        labels = {"classification": imagenet_labels(len(classifier))}
    info = WeightsInfo(
        model=ModelConfig(BackboneConfig(width_mult=width_mult), heads),
        preprocess=PreprocessSpec(_SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        labels=labels,
    )
    return Foreign(
        source, tensors, info, torchvision_name, reference=partial(_run, tensors, width_mult)
    )


def _run(state: Mapping[str, Tensor], width_mult: float, images: Tensor) -> Tensor:
    """Torchvision's own network on normalised images."""
    classes = len(state["classifier.1.bias"]) if "classifier.1.bias" in state else 1
    network = mobilenet_v2(width_mult=width_mult, num_classes=classes).eval()
    network.load_state_dict(state, strict=False)  # the renaming has accounted for every tensor
    return network(images) if "classifier.1.bias" in state else network.features(images)


def torchvision_name(ours: str) -> str:
    """Its name of a tensor of ours."""
    place = Place.of(ours)
    if place is None:
        return ours.replace("heads.classification.classifier.linear", "classifier.1")
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
    except (ValueError, AttributeError):
        raise ConfigError(
            f"SOURCE: expected a file ({', '.join(_FILES)}) or a name such as "
            f"MobileNet_V2_Weights.IMAGENET1K_V2, got {name}"
        ) from None
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (URLError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"SOURCE: {name}: cannot be downloaded from {weights.url} ({error}); download it "
            "elsewhere and give the file"
        ) from None
