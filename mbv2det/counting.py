"""Parameters and multiply-adds of a network, as papers count them.

A multiply-add is one application of one weight of a convolution or linear layer; biases, norms,
activations and resampling are not counted. Networks on the meta device are counted without
computing anything.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

_ELEMENTWISE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class Counts:
    """Sizes of a network, and the cost of running it.

    Attributes:
        parameters: Weights and biases, those of batch norm included.
        parameters_without_norms: Those that are left once batch norm, whose statistics then stand
            still, has been multiplied into the convolutions.
        multiply_adds: One per weight and position of the output.
        padded_multiply_adds: The same, but of an atrous convolution on the positions at which
            TensorFlow runs it: it cuts the map into interleaved ones (`space_to_batch`), for which
            height and width must be multiples of the rate. A rate of 18 makes 36 x 36 of 33 x 33.
    """

    parameters: int
    parameters_without_norms: int
    multiply_adds: int
    padded_multiply_adds: int


def count(module: nn.Module, run: Callable[[], object]) -> Counts:
    """Counts a network or a part of one.

    Args:
        module: What is counted.
        run: Calls it, or a network that it is a part of; multiply-adds are those of every image
            of every call.
    """
    plain = padded = 0

    def add(layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        nonlocal plain, padded
        per_output = layer.weight[0].numel()
        plain += per_output * output.numel()
        padded += per_output * _num_padded(layer, output)

    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with _without_elementwise(module):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return Counts(count_parameters(module), count_parameters(module, norms=False), plain, padded)


@contextmanager
def _without_elementwise(module: nn.Module) -> Iterator[None]:
    """Lets norms and activations return what they get: nine tenths of the time on the meta device.

    Only shapes matter to what is counted, and those they keep.
    """
    layers = [m for m in module.modules() if isinstance(m, _ELEMENTWISE)]
    for layer in layers:
        vars(layer)["forward"] = _unchanged
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _unchanged(x: Tensor) -> Tensor:
    return x


def _num_padded(layer: nn.Conv2d | nn.Linear, output: Tensor) -> int:
    """Outputs that TensorFlow computes, for those that it returns."""
    if isinstance(layer, nn.Linear):
        return output.numel()
    images, channels, *grid = output.shape
    padded = [r * math.ceil(n / r) for r, n in zip(layer.dilation, grid, strict=True)]
    return images * channels * math.prod(padded)


def count_parameters(module: nn.Module, norms: bool = True) -> int:
    """Trainable numbers of a network.

    Args:
        module: The network.
        norms: Whether batch norm's count.
    """
    layers = [m for m in module.modules() if norms or not isinstance(m, nn.BatchNorm2d)]
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))
