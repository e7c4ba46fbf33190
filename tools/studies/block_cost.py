"""Counts what an inverted residual costs beside a ResNet bottleneck, and the memory of both.

    python tools/studies/block_cost.py

The MobileNetV2 paper's sections 3.3 and 5.1 and table 3, measured by running the blocks. At every
stage of MobileNetV2 where a block has a shortcut, these give the same output size:

- an inverted residual (thin ends, six times as wide inside), run operation by operation, and run in
  parts: its expansion is computed, filtered and projected a group of channels at a time, which adds
  up to the same output. Then only its thin ends need to be held.
- a ResNet bottleneck (wide ends, a quarter as wide inside) with the same ends; and one with the
  same multiply-adds, whose ends are more than three times as wide, and must be held for its
  shortcut.

Memory is the largest sum of activations alive during any operation: what it reads, what it writes
(norms and activations work in place), and what the shortcut needs later. 16-bit floats, as in the
paper; 1 KB is 1000 bytes.

Table 3 is about whole networks at 224 pixels: the largest tensor, between operations that can be
run in parts, at each resolution. Where the paper's figures for MobileNetV2 are larger than those
measured (56, 28 and 14 cells), it pairs a stage's channels with the resolution that the stage
reads, which only its expansion has; at 7 cells it states twice what 1024 channels of MobileNetV1
take. The maxima agree.

Writes block_cost.png and block_cost.json into --out, in seconds.
"""

import argparse
import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models.resnet import Bottleneck

from mbv2det.backbones import MobileNetV1, MobileNetV2
from mbv2det.backbones.layers import ConvBNAct
from mbv2det.backbones.mobilenet_v2 import InvertedResidual
from mbv2det.counting import count
from mbv2det.files import whole_file, write_json

_STAGES = ((24, 56), (32, 28), (64, 14), (96, 14), (160, 7))  # channels, cells; paper table 2
_EXPAND_RATIO = 6
_PARTS = 6
_BYTES = 2  # of a 16-bit float
_IMAGE_SIZE = 224

# MobileNetV2's stem is the expansion of its first block, which has none of its own, and its last
# convolution that of the pooling: both can be computed in parts.
_IN_PARTS = ("layer_1", "layer_19")
_NETWORKS = (MobileNetV1, MobileNetV2)

# The paper's table 3: channels and KB by cells along a side.
_TABLE_3 = {
    "MobileNetV1": {
        112: (64, 1600), 56: (128, 800), 28: (256, 400), 14: (512, 200), 7: (1024, 199),
        1: (1024, 2),
    },
    "MobileNetV2": {
        112: (16, 400), 56: (32, 200), 28: (64, 100), 14: (160, 62), 7: (320, 32), 1: (1280, 2),
    },
}  # fmt: skip


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


def layer_outputs(kind: type[MobileNetV1 | MobileNetV2]) -> dict[str, Tensor]:
    """What every layer gives for one image, on the meta device."""
    with torch.device("meta"):
        names = [name for name in kind().feature_specs if "/" not in name]
        return kind(out_features=names)(torch.empty(1, 3, _IMAGE_SIZE, _IMAGE_SIZE))


def materialised(kind: type[MobileNetV1 | MobileNetV2]) -> dict[int, Materialised]:
    """The largest tensor that must be held whole at each resolution, by cells along a side."""
    outputs = layer_outputs(kind)
    pooled = outputs[kind.taps.classification].mean(dim=(2, 3), keepdim=True)
    held = [pooled, *(output for name, output in outputs.items() if name not in _IN_PARTS)]
    largest = {output.shape[-1]: output for output in sorted(held, key=Tensor.numel)}
    return {
        cells: Materialised(output.shape[1], _BYTES * output.numel() / 1000)
        for cells, output in sorted(largest.items(), reverse=True)
    }


def block_table(costs: Sequence[Cost]) -> Table:
    """One row per stage and way."""
    table = Table(title="A block with a shortcut: channels @ cells of its stage")
    table.add_column("stage")
    table.add_column("block, run how")
    for heading in ("ends", "inside", "params", "M MAdds", "peak KB"):
        table.add_column(heading, justify="right")
    for i, cost in enumerate(costs):
        new = i == 0 or costs[i - 1].channels != cost.channels
        if new and i:
            table.add_section()
        table.add_row(
            _stage(cost) if new else "",
            cost.way,
            str(cost.ends),
            str(cost.inside),
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e6:.1f}",
            f"{cost.kilobytes:,.0f}",
        )
    return table


def _stage(cost: Cost) -> str:
    return f"{cost.channels} @ {cost.cells}"


def network_table(networks: Mapping[str, Mapping[int, Materialised]]) -> Table:
    """Table 3, measured and as in the paper: channels/KB."""
    table = Table(title="Largest tensor at each resolution: channels/KB (table 3)")
    table.add_column("cells")
    for name in networks:
        table.add_column(f"{name}, measured", justify="right")
        table.add_column("paper", justify="right")
    for cells in _TABLE_3["MobileNetV2"]:
        row = []
        for name, found in networks.items():
            channels, kilobytes = _TABLE_3[name][cells]
            row += [
                f"{found[cells].channels}/{found[cells].kilobytes:.0f}",
                f"{channels}/{kilobytes}",
            ]
        table.add_row(f"{cells} x {cells}", *row)
    table.add_section()
    row = []
    for name, found in networks.items():
        row.append(f"{max(one.kilobytes for one in found.values()):.0f}")
        row.append(f"{max(kilobytes for _, kilobytes in _TABLE_3[name].values())}")
    table.add_row("max KB", *row)
    return table


def draw(costs: Sequence[Cost], networks: Mapping[str, Mapping[int, Materialised]]) -> Figure:
    """Blocks on the left, whole networks on the right."""
    with style.context("petroff10"):
        figure = Figure(figsize=(14, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        figure.suptitle("Thin ends and a wide inside take little memory, if run in parts")
        _draw_blocks(left, costs)
        _draw_networks(right, networks)
    return figure


def _draw_blocks(axes: Axes, costs: Sequence[Cost]) -> None:
    ways = list(dict.fromkeys(cost.way for cost in costs))
    stages = list(dict.fromkeys(_stage(cost) for cost in costs))
    for index, way in enumerate(ways):
        heights = [cost.kilobytes for cost in costs if cost.way == way]
        _bars(axes, heights, index, len(ways), way)
    axes.set_xticks(range(len(stages)), stages)
    axes.set_xlabel("channels @ cells along a side, of the stage")
    axes.set_title("Activations alive at once in a block", fontsize=10)
    _finish(axes)


def _draw_networks(axes: Axes, networks: Mapping[str, Mapping[int, Materialised]]) -> None:
    resolutions = [cells for cells in _TABLE_3["MobileNetV2"] if cells > 1]
    columns: dict[str, list[float]] = {}
    for name, found in networks.items():
        columns[f"{name}, measured"] = [found[cells].kilobytes for cells in resolutions]
        columns[f"{name}, paper"] = [_TABLE_3[name][cells][1] for cells in resolutions]
    for index, (label, heights) in enumerate(columns.items()):
        look = {"hatch": "//", "alpha": 0.5} if label.endswith("paper") else {}
        colour = f"C{index // 2}"
        _bars(axes, heights, index, len(columns), label, color=colour, **look)
    axes.set_xticks(range(len(resolutions)), [f"{c} x {c}" for c in resolutions])
    axes.set_xlabel(f"cells (image of {_IMAGE_SIZE} pixels)")
    axes.set_title("Largest tensor between blocks of a network (table 3)", fontsize=10)
    _finish(axes)


def _bars(
    axes: Axes, heights: Sequence[float], index: int, count: int, label: str, **look: Any
) -> None:
    """Bars of one look, the index-th in each of the groups, their heights above them."""
    width = 0.85 / count
    places = [group + (index - (count - 1) / 2) * width for group in range(len(heights))]
    bars = axes.bar(places, heights, width, label=label, **look)
    axes.bar_label(bars, fmt="{:.0f}", fontsize=7, rotation=90, padding=3)


def _finish(axes: Axes) -> None:
    axes.set_ylabel("KB (16-bit floats)")
    axes.margins(y=0.1)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=9)


def main() -> None:
    """Counts, prints, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("runs/studies/block_cost")
    parser.add_argument("--out", type=Path, default=default, help=f"folder ({default})")
    options = parser.parse_args()
    torch.manual_seed(0)
    costs = [cost for stage in _STAGES for cost in stage_costs(*stage)]
    networks = {kind.__name__: materialised(kind) for kind in _NETWORKS}
    difference = max(difference_in_parts(*stage) for stage in _STAGES)
    console = Console()
    console.print(block_table(costs))
    console.print(f"in parts or whole: outputs differ by at most {difference:.0e} of the largest")
    console.print()
    console.print(network_table(networks))
    document = {
        "blocks": [asdict(cost) for cost in costs],
        "difference_in_parts": difference,
        "networks": {
            name: {str(cells): asdict(one) for cells, one in found.items()}
            for name, found in networks.items()
        },
        "paper_table_3": _TABLE_3,
    }
    write_json(options.out / "block_cost.json", document)
    with whole_file(options.out / "block_cost.png") as part:
        draw(costs, networks).savefig(part, dpi=120, format="png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
