"""Numbers of parameters and multiply-adds of a network, as papers count them.

A multiply-add is one application of one weight of a convolution or linear layer. Biases, batch
norm, activations and resampling are not counted. A network on the meta device is counted without
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
    """Size of a network and cost of running it.

    Attributes:
        parameters: Number of weights and biases, including those of batch norm.
        parameters_without_norms: Number of weights and biases without those of batch norm, which
            can be folded into the convolutions once its statistics are fixed.
        multiply_adds: Number of multiply-adds: one for each weight and output position.
        padded_multiply_adds: Number of multiply-adds that TensorFlow performs. It runs an atrous
            convolution on interleaved parts of the feature map (`space_to_batch`), whose height and
            width it pads to multiples of the rate: at rate 18, 33 x 33 becomes 36 x 36.
    """

    parameters: int
    parameters_without_norms: int
    multiply_adds: int
    padded_multiply_adds: int


def count(module: nn.Module, run: Callable[[], object]) -> Counts:
    """Counts the parameters and multiply-adds of a network or of a part of one.

    Args:
        module: Network, or part of a network, to count.
        run: Calls `module`, or the network that it is a part of. The multiply-adds of all images of
            all calls are added up.
    """
    exact = padded = 0

    def add(layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        nonlocal exact, padded
        weights_per_output = layer.weight[0].numel()
        exact += weights_per_output * output.numel()
        padded += weights_per_output * _num_padded_outputs(layer, output)

    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        with _without_elementwise(module):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return Counts(count_parameters(module), count_parameters(module, norms=False), exact, padded)


def count_parameters(module: nn.Module, norms: bool = True) -> int:
    """Counts the parameters of a network: weights and biases, but no buffers.

    Args:
        module: Network to count.
        norms: Whether to include those of batch norm.
    """
    layers = [m for m in module.modules() if norms or not isinstance(m, nn.BatchNorm2d)]
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))


@contextmanager
def _without_elementwise(module: nn.Module) -> Iterator[None]:
    """Replaces batch norm and activations by the identity, for speed.

    They take nine tenths of the time on the meta device, and counting depends on shapes alone,
    which they do not change.
    """
    layers = [m for m in module.modules() if isinstance(m, _ELEMENTWISE)]
    for layer in layers:
        vars(layer)["forward"] = _identity
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _identity(x: Tensor) -> Tensor:
    return x


def _num_padded_outputs(layer: nn.Conv2d | nn.Linear, output: Tensor) -> int:
    """Returns the number of output values that TensorFlow computes, padding included."""
    if isinstance(layer, nn.Linear):
        return output.numel()
    images, channels, *grid = output.shape
    padded = [r * math.ceil(n / r) for r, n in zip(layer.dilation, grid, strict=True)]
    return images * channels * math.prod(padded)
