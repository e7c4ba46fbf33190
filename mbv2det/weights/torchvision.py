"""torchvision's MobileNetV2 state dict, renamed to ours."""

from pathlib import Path

from torch import Tensor

from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.errors import ConfigError
from mbv2det.weights.files import load_tensors

_LAYERS = 19


def torchvision_names(backbone: MobileNetV2) -> dict[str, str]:
    """Torchvision's name of every tensor of a backbone, by ours."""
    modules = {}
    for name in backbone.layers:
        index = int(name.removeprefix("layer_")) - 1
        theirs = f"features.{index}"
        if index in (0, _LAYERS - 1):
            modules[f"layers.{name}.conv"], modules[f"layers.{name}.norm"] = (
                f"{theirs}.0",
                f"{theirs}.1",
            )
            continue
        parts = ["expand", "depthwise"] if index > 1 else ["depthwise"]
        for position, part in enumerate(parts):
            modules[f"layers.{name}.{part}.conv"] = f"{theirs}.conv.{position}.0"
            modules[f"layers.{name}.{part}.norm"] = f"{theirs}.conv.{position}.1"
        modules[f"layers.{name}.project.conv"] = f"{theirs}.conv.{len(parts)}"
        modules[f"layers.{name}.project.norm"] = f"{theirs}.conv.{len(parts) + 1}"
    names = {}
    for ours in backbone.state_dict():
        module, _, tensor = ours.rpartition(".")
        if module in modules:
            names[ours] = f"{modules[module]}.{tensor}"
        else:  # classifier.1, where the backbone was built with one
            names[ours] = ours
    return names


def load_torchvision_backbone(backbone: MobileNetV2, path: Path) -> None:
    """Fills a backbone from a torchvision state dict, and its classifier if it has one.

    Raises:
        ConfigError: If the file is none of torchvision's MobileNetV2, or of another width.
    """
    source = load_tensors(path, "backbone.weights")
    target = backbone.state_dict()
    filled: dict[str, Tensor] = {}
    for ours, theirs in torchvision_names(backbone).items():
        if theirs not in source:
            raise ConfigError(
                f"backbone.weights: {path}: expected a torchvision MobileNetV2 state dict, "
                f"got none of its {theirs!r} (first name: {next(iter(source), 'none')!r})"
            )
        if source[theirs].shape != target[ours].shape:
            raise ConfigError(
                f"backbone.weights: {path}: {theirs} has shape {tuple(source[theirs].shape)}, "
                f"expected {tuple(target[ours].shape)}: is backbone.width_mult right?"
            )
        filled[ours] = source[theirs]
    backbone.load_state_dict(filled)
