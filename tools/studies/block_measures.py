"""Measurements for `block_cost`: parameters, multiply-adds and peak memory of blocks."""

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models.resnet import Bottleneck

from mbv2det.backbones import Feature, MobileNetV1, MobileNetV2
from mbv2det.backbones.layers import ConvBNAct
from mbv2det.backbones.mobilenet_v2 import InvertedResidual
from mbv2det.counting import count

IMAGE_SIZE = 224
_EXPAND_RATIO = 6
_PARTS = 6
_BYTES = 2  # bytes of a 16-bit float

# The outputs of these layers need not be held as a whole. MobileNetV2's stem acts as the expansion
# of the first block, which has no other expansion, and the last convolution is followed by global
# pooling: both can be computed a group of channels at a time.
_IN_PARTS = ("layer_1", "layer_19")

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Cost:
    """Cost of one block, run in one way.

    Attributes:
        channels: Channels of the stage.
        cells: Height and width of the stage's feature map.
        variant: The block, and how it is run.
        outer_channels: Channels of the block's input and output.
        inner_channels: Channels of the depthwise or 3x3 convolution.
        parameters: Number of parameters, batch norms included.
        multiply_adds: Multiply-adds of one image.
        kilobytes: Largest sum of activations that are alive at once, in KB of 1000 bytes.
    """

    channels: int
    cells: int
    variant: str
    outer_channels: int
    inner_channels: int
    parameters: int
    multiply_adds: int
    kilobytes: float


@dataclass(frozen=True)
class Materialised:
    """The largest tensor that must be held as a whole at one resolution.

    Attributes:
        channels: Channels of the tensor.
        kilobytes: Memory of the tensor, in KB of 1000 bytes.
    """

    channels: int
    kilobytes: float


class ActivationRecorder(TorchDispatchMode):
    """Records which activations each operation within the context reads or writes.

    A view counts as the tensor whose storage it shares.

    Args:
        weights: Tensors that are not counted as activations.

    Attributes:
        sizes: Number of elements of every storage, by address.
        operations: Addresses of the storages that each operation read or wrote.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.operations: list[set[int]] = []
        self._weights = {_address(t) for t in weights}
        # A freed address could be given to another tensor: every tensor is kept alive.
        self._references: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        self._references += tensors
        touched = {_address(t): t.untyped_storage().nbytes() // t.itemsize for t in tensors}
        self.sizes |= touched
        self.operations.append(touched.keys() - self._weights)
        return result

    def peak(self, result: Tensor) -> int:
        """Returns the largest number of elements that are alive during one operation.

        An activation is alive from the first operation that touches it to the last.

        Args:
            result: Output of the recorded code, which stays alive to the end.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for index, touched in enumerate(self.operations):
            for address in touched:
                first.setdefault(address, index)
            last |= dict.fromkeys(touched, index)
        last[_address(result)] = len(self.operations)
        changes = [0] * (len(self.operations) + 2)
        for address, index in first.items():
            changes[index] += self.sizes[address]
            changes[last[address] + 1] -= self.sizes[address]
        return max(accumulate(changes))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@torch.no_grad()
def peak_elements(block: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Returns the largest number of activation elements, input included, that are alive at once.

    Args:
        block: The block whose tensors are weights, not activations.
        run: Function that computes the output of the block.
        x: Input of the block.
    """
    with ActivationRecorder(list(block.state_dict().values())) as recorder:
        result = run(x)
    return recorder.peak(result)


def without_norms(module: Network) -> Network:
    """Returns a copy in evaluation mode with batch norms folded into the convolutions."""
    module = copy.deepcopy(module).eval()
    for parent in list(module.modules()):
        last = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                assert last is not None
                setattr(parent, last, fuse_conv_bn_eval(getattr(parent, last), child))
                setattr(parent, name, nn.Identity())
            last = name
    return module


@torch.no_grad()
def run_in_parts(
    block: InvertedResidual, x: Float[Tensor, "B C h w"], parts: int
) -> Float[Tensor, "B C h w"]:
    """Computes the output of an inverted residual without ever holding its whole expansion.

    The expansion and the depthwise convolution compute every inner channel separately, and the
    projection sums over the inner channels: F(x) = sum of A_i(N(B_i(x))) over groups i of inner
    channels (section 5.1 of the paper).

    Args:
        block: Block with a shortcut and with its batch norms folded.
        x: Input of the block.
        parts: Number of groups of inner channels.
    """
    expand, depthwise, project = map(_affine, (block.expand, block.depthwise, block.project))
    result = x + project.bias[:, None, None]
    for part in _split(block.expanded_channels, parts):
        inner = F.conv2d(x, expand.weight[part], expand.bias[part])
        F.relu6(inner, inplace=True)
        weight = depthwise.weight[part]
        inner = F.conv2d(inner, weight, depthwise.bias[part], padding="same", groups=len(weight))
        F.relu6(inner, inplace=True)
        matrix = project.weight[:, part, 0, 0].expand(len(x), -1, -1)
        result.flatten(2).baddbmm_(matrix, inner.flatten(2))  # adds in place, without a copy
    return result


class _Affine(NamedTuple):
    """Weight and bias of a convolution."""

    weight: Tensor
    bias: Tensor


def _affine(layer: nn.Module) -> _Affine:
    conv = layer.get_submodule("conv")
    return _Affine(conv.get_parameter("weight"), conv.get_parameter("bias"))


def _split(count: int, parts: int) -> Iterator[slice]:
    """Returns consecutive slices of nearly equal length that cover `range(count)`."""
    bounds = [count * i // parts for i in range(parts + 1)]
    return map(slice, bounds, bounds[1:])


def inverted_residual(channels: int) -> InvertedResidual:
    """Returns a MobileNetV2 block with a shortcut."""
    return InvertedResidual(
        channels, channels, expand_ratio=_EXPAND_RATIO, stride=1, dilation=1, conv=ConvBNAct
    )


def resnet_bottleneck(inner_channels: int) -> Bottleneck:
    """Returns torchvision's ResNet bottleneck with a shortcut."""
    return Bottleneck(inner_channels * Bottleneck.expansion, inner_channels)


def multiply_adds(make: Callable[[], nn.Module], channels: int, cells: int) -> int:
    """Returns the multiply-adds of a block for one feature map of `cells` x `cells`."""
    with torch.device("meta"):
        block, x = make(), torch.empty(1, channels, cells, cells)
    return count(block, lambda: block(x)).multiply_adds


def equally_costly(channels: int, cells: int) -> int:
    """Returns the inner channels of the largest ResNet bottleneck of at most the same cost.

    Args:
        channels: Input and output channels of the inverted residual.
        cells: Height and width of the feature map.
    """

    def cost(inner_channels: int) -> int:
        outer_channels = inner_channels * Bottleneck.expansion
        return multiply_adds(partial(resnet_bottleneck, inner_channels), outer_channels, cells)

    budget = multiply_adds(partial(inverted_residual, channels), channels, cells)
    return bisect_right(range(1, _EXPAND_RATIO * channels), budget, key=cost)


def stage_costs(channels: int, cells: int) -> list[Cost]:
    """Returns the costs of every variant at one stage."""
    narrow, wide = channels // Bottleneck.expansion, equally_costly(channels, cells)
    inverted = inverted_residual(channels)
    return [
        _cost("ResNet, same ends", resnet_bottleneck(narrow), narrow, channels, cells),
        _cost("ResNet, same MAdds", resnet_bottleneck(wide), wide, channels, cells),
        _cost("inverted", inverted, inverted.expanded_channels, channels, cells),
        *(
            _cost(variant, inverted, inverted.expanded_channels, channels, cells, parts)
            for variant, parts in (
                (f"inverted, {_PARTS} parts", _PARTS),
                ("inverted, by channel", inverted.expanded_channels),
            )
        ),
    ]


def _cost(
    variant: str,
    block: InvertedResidual | Bottleneck,
    inner_channels: int,
    channels: int,
    cells: int,
    parts: int | None = None,
) -> Cost:
    outer_channels = channels
    if isinstance(block, Bottleneck):
        outer_channels = inner_channels * Bottleneck.expansion
    x = torch.zeros(1, outer_channels, cells, cells)
    counts = count(block, lambda: block(x))
    folded = without_norms(block)
    run = folded if parts is None else partial(run_in_parts, folded, parts=parts)
    return Cost(
        channels=channels,
        cells=cells,
        variant=variant,
        outer_channels=outer_channels,
        inner_channels=inner_channels,
        parameters=counts.parameters,
        multiply_adds=counts.multiply_adds,
        kilobytes=_BYTES * peak_elements(folded, run, x) / 1000,
    )


def difference_in_parts(channels: int, cells: int) -> float:
    """Returns the largest error of running a block in parts, relative to the largest output."""
    block = without_norms(inverted_residual(channels))
    x = torch.randn(2, channels, cells, cells)
    with torch.no_grad():
        whole = block(x)
    outputs = [run_in_parts(block, x, parts) for parts in (_PARTS, block.expanded_channels)]
    return max(float((out - whole).abs().max() / whole.abs().max()) for out in outputs)


def layer_outputs(network: type[MobileNetV1 | MobileNetV2]) -> dict[Feature, Tensor]:
    """Returns the output of every layer for one image, on the meta device."""
    with torch.device("meta"):
        features = [feature for feature in network().feature_specs if feature.part is None]
        return network(out_features=features)(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE))


def materialised(network: type[MobileNetV1 | MobileNetV2]) -> dict[int, Materialised]:
    """Returns the largest tensor that must be held as a whole, by the cells along a side."""
    outputs = layer_outputs(network)
    pooled = outputs[network.head_features.last].mean(dim=(2, 3), keepdim=True)
    held = [
        pooled,
        *(output for feature, output in outputs.items() if feature.layer not in _IN_PARTS),
    ]
    largest = {output.shape[-1]: output for output in sorted(held, key=Tensor.numel)}
    return {
        cells: Materialised(output.shape[1], _BYTES * output.numel() / 1000)
        for cells, output in sorted(largest.items(), reverse=True)
    }
