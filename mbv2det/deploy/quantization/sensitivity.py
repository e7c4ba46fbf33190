"""How much each part of a network suffers from 8 bits, found in PyTorch for every format alike.

One part at a time computes with int8 weights and 8-bit inputs of its layers, and the raw outputs of
all heads are compared with those in float32.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from mbv2det.deploy.prepare import prepared
from mbv2det.model import MultiTaskModel
from mbv2det.tasks import Task

_LAYERS = (nn.Conv2d, nn.Linear)
_IMAGES_AT_ONCE = 8


def parts_of(model: MultiTaskModel) -> dict[str, nn.Module]:
    """Returns the parts of a network that can stay in float32, by name.

    They are the layers of the backbone and the blocks of each head, such as
    `backbone.layers.layer_2` and `heads.detection.class_predictors.0`.
    """
    tops = {"backbone": model.backbone} | {f"heads.{k}": head for k, head in model.heads.items()}
    return {
        name: module
        for top, root in tops.items()
        for name, module in _blocks(root, top)
        if any(isinstance(layer, _LAYERS) for layer in module.modules())
    }


def _blocks(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yields the children of a module, and in place of a container the modules in it."""
    for child_name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _blocks(child, f"{name}.{child_name}")
        else:
            yield f"{name}.{child_name}", child


@torch.inference_mode()
def signal_to_noise(
    model: MultiTaskModel, tasks: Sequence[Task], images: UInt8[Tensor, "N 3 H W"]
) -> dict[str, float]:
    """Returns the signal-to-noise ratio of the outputs with one part in int8, in decibels.

    Args:
        model: Trained network.
        tasks: Its tasks; the ratio is that of the task that suffers most.
        images: Images of the network's input size.

    Returns:
        The ratio of each part; the lowest belongs to the most sensitive one.
    """
    network = prepared(model)
    batches = images.split(_IMAGES_AT_ONCE)
    ranges = _input_ranges(network, batches)
    expected = _outputs(network, tasks, batches)
    ratios = {}
    for name, part in parts_of(network).items():
        with _quantized(part, ranges):
            got = _outputs(network, tasks, batches)
        ratios[name] = min(_decibels(expected[task], got[task]) for task in expected)
    return ratios


def _outputs(
    network: MultiTaskModel, tasks: Sequence[Task], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Returns the raw outputs of each task for all images."""
    results = [network(batch) for batch in batches]
    return {
        task.name: torch.cat([task.raw_tensor(result[task.name]) for result in results])
        for task in tasks
    }


def _input_ranges(
    network: nn.Module, batches: Iterable[Tensor]
) -> dict[nn.Module, tuple[float, float]]:
    """Returns the smallest and the largest input of each convolution and linear layer."""
    ranges: dict[nn.Module, tuple[float, float]] = {
        layer: (0.0, 0.0) for layer in network.modules() if isinstance(layer, _LAYERS)
    }

    def record(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        low, high = ranges[layer]
        ranges[layer] = (min(low, inputs[0].min().item()), max(high, inputs[0].max().item()))

    with _before_each(ranges, record):
        for batch in batches:
            network(batch)
    return ranges


@contextmanager
def _quantized(part: nn.Module, ranges: Mapping[nn.Module, tuple[float, float]]) -> Iterator[None]:
    """Rounds weights and inputs of the layers of a part to 8 bits, inside the block."""
    layers = [layer for layer in part.modules() if isinstance(layer, _LAYERS)]
    weights = [layer.weight.data for layer in layers]

    def round_input(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        low, high = ranges[layer]
        scale = max(high - low, torch.finfo(torch.float32).tiny) / 255
        zero = round(-low / scale)
        return (torch.fake_quantize_per_tensor_affine(inputs[0], scale, zero, 0, 255),)

    try:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.data = _rounded(weight)
        with _before_each(layers, round_input):
            yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.data = weight


def _rounded(weight: Tensor) -> Tensor:
    """Returns a weight as int8 would represent it, with one scale for each output channel."""
    scale = weight.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


@contextmanager
def _before_each(layers: Iterable[nn.Module], hook: Any) -> Iterator[None]:
    """Calls a function before each of the layers, inside the block."""
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(hook).remove)
        yield


def _decibels(expected: Tensor, got: Tensor) -> float:
    signal, noise = (x.double().square().sum().item() for x in (expected, got - expected))
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-30) / noise)
