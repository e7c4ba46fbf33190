"""What `block_cost` measures: costs of blocks, run whole and in parts, and the memory they need."""

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
_BYTES = 2  # of a 16-bit float

# MobileNetV2's stem is the expansion of its first block, which has none of its own, and its last
# convolution that of the pooling: both can be computed in parts.
_IN_PARTS = ("layer_1", "layer_19")

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Cost:
    """Of one way to run one block.

    Attributes:
        channels: Of the stage.
        cells: Of the stage, along a side.
        way: Which block, run how.
        ends: Channels of the block's input and output.
        inside: Channels of the depthwise or 3x3 convolution.
        parameters: Weights and biases, those of batch norm too.
        multiply_adds: Of one image.
        kilobytes: Largest sum of activations that are alive at once.
    """

    channels: int
    cells: int
    way: str
    ends: int
    inside: int
    parameters: int
    multiply_adds: int
    kilobytes: float


@dataclass(frozen=True)
class Materialised:
    """The largest tensor of a resolution.

    Attributes:
        channels: Of it.
        kilobytes: It takes.
    """

    channels: int
    kilobytes: float


class Activations(TorchDispatchMode):
    """Notes which activations every operation inside touches; views are what they are views of.

    Args:
        ignored: Tensors that are not activations: weights.
    """

    def __init__(self, ignored: Sequence[Tensor]) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.steps: list[set[int]] = []
        self._ignored = {_place(t) for t in ignored}
        self._kept: list[Tensor] = []  # no memory is given away twice

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        self._kept += tensors
        touched = {_place(t): t.untyped_storage().nbytes() // t.itemsize for t in tensors}
        self.sizes |= touched
        self.steps.append(touched.keys() - self._ignored)
        return result

    def peak(self, result: Tensor) -> int:
        """Most numbers alive at once: from the first step that touches them to the last, or on."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for index, step in enumerate(self.steps):
            for place in step:
                first.setdefault(place, index)
            last |= dict.fromkeys(step, index)
        last[_place(result)] = len(self.steps)
        changes = [0] * (len(self.steps) + 2)
        for place, index in first.items():
            changes[index] += self.sizes[place]
            changes[last[place] + 1] -= self.sizes[place]
        return max(accumulate(changes))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@torch.no_grad()
def peak_numbers(block: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Most numbers that `run`, with the weights of a block, holds at once; its input is one."""
    with Activations(list(block.state_dict().values())) as activations:
        result = run(x)
    return activations.peak(result)


def without_norms(module: Network) -> Network:
    """A copy in evaluation mode whose batch norms are part of the convolutions before them."""
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
    """Output of an inverted residual that never holds its whole expansion.

    Expansion and depthwise convolution treat every channel for itself, and the projection adds
    channels up: F(x) = sum of A_i(N(B_i(x))) over groups i of channels (paper section 5.1).

    Args:
        block: Without norms, with a shortcut.
        x: Its input.
        parts: Groups.
    """
    expand, depthwise, project = map(_affine, (block.expand, block.depthwise, block.project))
    result = x + project.bias[:, None, None]
    for part in _split(block.expanded_channels, parts):
        inside = F.conv2d(x, expand.weight[part], expand.bias[part])
        F.relu6(inside, inplace=True)
        weight = depthwise.weight[part]
        inside = F.conv2d(inside, weight, depthwise.bias[part], padding="same", groups=len(weight))
        F.relu6(inside, inplace=True)
        matrix = project.weight[:, part, 0, 0].expand(len(x), -1, -1)
        result.flatten(2).baddbmm_(matrix, inside.flatten(2))  # adds to it without a copy
    return result


class _Affine(NamedTuple):
    """What a convolution multiplies with and adds."""

    weight: Tensor
    bias: Tensor


def _affine(layer: nn.Module) -> _Affine:
    conv = layer.get_submodule("conv")
    return _Affine(conv.get_parameter("weight"), conv.get_parameter("bias"))


def _split(count: int, parts: int) -> Iterator[slice]:
    """Consecutive slices of about equal length."""
    bounds = [count * i // parts for i in range(parts + 1)]
    return map(slice, bounds, bounds[1:])


def inverted_residual(channels: int) -> InvertedResidual:
    """Of MobileNetV2, with a shortcut."""
    return InvertedResidual(
        channels, channels, expand_ratio=_EXPAND_RATIO, stride=1, dilation=1, conv=ConvBNAct
    )


def resnet_bottleneck(inside: int) -> Bottleneck:
    """torchvision's, with a shortcut."""
    return Bottleneck(inside * Bottleneck.expansion, inside)


def multiply_adds(make: Callable[[], nn.Module], ends: int, cells: int) -> int:
    """Of a block, for one image."""
    with torch.device("meta"):
        block, x = make(), torch.empty(1, ends, cells, cells)
    return count(block, lambda: block(x)).multiply_adds


def equally_costly(channels: int, cells: int) -> int:
    """Inside channels of the largest ResNet bottleneck that computes no more than ours."""

    def cost(inside: int) -> int:
        ends = inside * Bottleneck.expansion
        return multiply_adds(partial(resnet_bottleneck, inside), ends, cells)

    ours = multiply_adds(partial(inverted_residual, channels), channels, cells)
    return bisect_right(range(1, _EXPAND_RATIO * channels), ours, key=cost)


def stage_costs(channels: int, cells: int) -> list[Cost]:
    """Every way to run a block of one stage."""
    narrow, wide = channels // Bottleneck.expansion, equally_costly(channels, cells)
    ours = inverted_residual(channels)
    return [
        _cost("ResNet, same ends", resnet_bottleneck(narrow), narrow, channels, cells),
        _cost("ResNet, same MAdds", resnet_bottleneck(wide), wide, channels, cells),
        _cost("inverted", ours, ours.expanded_channels, channels, cells),
        *(
            _cost(way, ours, ours.expanded_channels, channels, cells, parts)
            for way, parts in (
                (f"inverted, {_PARTS} parts", _PARTS),
                ("inverted, by channel", ours.expanded_channels),
            )
        ),
    ]


def _cost(
    way: str,
    block: InvertedResidual | Bottleneck,
    inside: int,
    channels: int,
    cells: int,
    parts: int | None = None,
) -> Cost:
    ends = inside * Bottleneck.expansion if isinstance(block, Bottleneck) else channels
    x = torch.zeros(1, ends, cells, cells)
    counts = count(block, lambda: block(x))
    folded = without_norms(block)
    run = folded if parts is None else partial(run_in_parts, folded, parts=parts)
    kilobytes = _BYTES * peak_numbers(folded, run, x) / 1000
    return Cost(
        channels, cells, way, ends, inside, counts.parameters, counts.multiply_adds, kilobytes
    )


def difference_in_parts(channels: int, cells: int) -> float:
    """Largest difference that running in parts makes, relative to the largest output."""
    block = without_norms(inverted_residual(channels))
    x = torch.randn(2, channels, cells, cells)
    with torch.no_grad():
        whole = block(x)
    found = [run_in_parts(block, x, n) for n in (_PARTS, block.expanded_channels)]
    return max(float((one - whole).abs().max() / whole.abs().max()) for one in found)


def layer_outputs(kind: type[MobileNetV1 | MobileNetV2]) -> dict[Feature, Tensor]:
    """What every layer gives for one image, on the meta device."""
    with torch.device("meta"):
        features = [feature for feature in kind().feature_specs if feature.part is None]
        return kind(out_features=features)(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE))


def materialised(kind: type[MobileNetV1 | MobileNetV2]) -> dict[int, Materialised]:
    """The largest tensor that must be held whole at each resolution, by cells along a side."""
    outputs = layer_outputs(kind)
    pooled = outputs[kind.head_features.classification].mean(dim=(2, 3), keepdim=True)
    held = [
        pooled,
        *(output for feature, output in outputs.items() if feature.layer not in _IN_PARTS),
    ]
    largest = {output.shape[-1]: output for output in sorted(held, key=Tensor.numel)}
    return {
        cells: Materialised(output.shape[1], _BYTES * output.numel() / 1000)
        for cells, output in sorted(largest.items(), reverse=True)
    }
