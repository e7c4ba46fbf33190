"""Compares the cost and memory of an inverted residual with those of a ResNet bottleneck.

    python tools/studies/block_cost.py

Measures the claims of sections 3.3 and 5.1 and of table 3 of the MobileNetV2 paper by running the
blocks. At every stage of MobileNetV2 that has a block with a shortcut, these are compared:

- the inverted residual of the stage (narrow input and output, inner layers six times as wide), run
  operation by operation, and run in parts: its expansion is computed, filtered and projected one
  group of channels at a time, and the projections are summed, which gives the same output. Then
  only the narrow input and output must be held in memory as a whole.
- a ResNet bottleneck (wide input and output, inner layers a quarter as wide) with the same number
  of input and output channels; and the largest one that takes no more multiply-adds, whose input
  and output are more than three times as wide and must be held for the shortcut.

Memory is the largest sum of activations that are alive during one operation: its inputs, its
outputs (batch norms and activation functions work in place), and the input of the block until the
shortcut has been added. Floats have 16 bits, as in the paper; 1 KB is 1000 bytes.

Table 3 is about whole networks at 224 pixels: at each resolution, the largest tensor that must be
held as a whole, without the inner tensors of blocks that can be run in parts. At 56, 28 and 14
cells the paper's figures for MobileNetV2 are larger than the measured ones, because the paper pairs
the channels of a stage with the resolution of the stage's input, which only its first expansion
has. At 7 cells its figure for MobileNetV1 is twice what 1024 channels take. The maxima agree.

Writes block_cost.png and block_cost.json into --out; takes seconds.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from block_measures import (
    IMAGE_SIZE,
    Cost,
    Materialised,
    difference_in_parts,
    materialised,
    stage_costs,
)
from matplotlib import style as pyplot_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mbv2det.atomic_write import atomic_write, write_json
from mbv2det.backbones import MobileNetV1, MobileNetV2

_STAGES = (
    (24, 56),
    (32, 28),
    (64, 14),
    (96, 14),
    (160, 7),
)  # (channels, cells along a side); table 2 of the paper
_NETWORKS = (MobileNetV1, MobileNetV2)

# Table 3 of the paper: (channels, KB) by the number of cells along a side.
_TABLE_3 = {
    "MobileNetV1": {
        112: (64, 1600), 56: (128, 800), 28: (256, 400), 14: (512, 200), 7: (1024, 199),
        1: (1024, 2),
    },
    "MobileNetV2": {
        112: (16, 400), 56: (32, 200), 28: (64, 100), 14: (160, 62), 7: (320, 32), 1: (1280, 2),
    },
}  # fmt: skip


def block_table(costs: Sequence[Cost]) -> Table:
    """Returns a table with one row for each variant at each stage."""
    table = Table(title="A block with a shortcut; stage: channels @ cells along a side")
    table.add_column("stage")
    table.add_column("variant")
    for heading in ("outer", "inner", "params", "M MAdds", "peak KB"):
        table.add_column(heading, justify="right")
    for i, cost in enumerate(costs):
        first_of_stage = i == 0 or costs[i - 1].channels != cost.channels
        if first_of_stage and i:
            table.add_section()
        table.add_row(
            _stage(cost) if first_of_stage else "",
            cost.variant,
            str(cost.outer_channels),
            str(cost.inner_channels),
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e6:.1f}",
            f"{cost.kilobytes:,.0f}",
        )
    return table


def _stage(cost: Cost) -> str:
    return f"{cost.channels} @ {cost.cells}"


def network_table(networks: Mapping[str, Mapping[int, Materialised]]) -> Table:
    """Returns the measured table 3 beside the paper's; a cell shows channels/KB."""
    table = Table(title="Largest tensor at each resolution: channels/KB (table 3)")
    table.add_column("cells")
    for name in networks:
        table.add_column(f"{name}, measured", justify="right")
        table.add_column("paper", justify="right")
    for cells in _TABLE_3["MobileNetV2"]:
        row = []
        for name, tensors in networks.items():
            channels, kilobytes = _TABLE_3[name][cells]
            row += [
                f"{tensors[cells].channels}/{tensors[cells].kilobytes:.0f}",
                f"{channels}/{kilobytes}",
            ]
        table.add_row(f"{cells} x {cells}", *row)
    table.add_section()
    row = []
    for name, tensors in networks.items():
        row.append(f"{max(tensor.kilobytes for tensor in tensors.values()):.0f}")
        row.append(f"{max(kilobytes for _, kilobytes in _TABLE_3[name].values())}")
    table.add_row("max KB", *row)
    return table


def draw(costs: Sequence[Cost], networks: Mapping[str, Mapping[int, Materialised]]) -> Figure:
    """Returns a figure of the blocks (left) and of the whole networks (right)."""
    with pyplot_style.context("petroff10"):
        figure = Figure(figsize=(14, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        figure.suptitle("Inverted residuals take little memory if they are run in parts")
        _draw_blocks(left, costs)
        _draw_networks(right, networks)
    return figure


def _draw_blocks(axes: Axes, costs: Sequence[Cost]) -> None:
    variants = list(dict.fromkeys(cost.variant for cost in costs))
    stages = list(dict.fromkeys(_stage(cost) for cost in costs))
    for index, variant in enumerate(variants):
        heights = [cost.kilobytes for cost in costs if cost.variant == variant]
        _draw_bars(axes, heights, index, len(variants), variant)
    axes.set_xticks(range(len(stages)), stages)
    axes.set_xlabel("stage: channels @ cells along a side")
    axes.set_title("Most activations alive at once in a block", fontsize=10)
    _finish_axes(axes)


def _draw_networks(axes: Axes, networks: Mapping[str, Mapping[int, Materialised]]) -> None:
    resolutions = [cells for cells in _TABLE_3["MobileNetV2"] if cells > 1]
    columns: dict[str, list[float]] = {}
    for name, tensors in networks.items():
        columns[f"{name}, measured"] = [tensors[cells].kilobytes for cells in resolutions]
        columns[f"{name}, paper"] = [_TABLE_3[name][cells][1] for cells in resolutions]
    for index, (label, heights) in enumerate(columns.items()):
        style = {"hatch": "//", "alpha": 0.5} if label.endswith("paper") else {}
        colour = f"C{index // 2}"
        _draw_bars(axes, heights, index, len(columns), label, color=colour, **style)
    axes.set_xticks(range(len(resolutions)), [f"{c} x {c}" for c in resolutions])
    axes.set_xlabel(f"cells along each side (image of {IMAGE_SIZE} pixels)")
    axes.set_title("Largest tensor that a network must hold (table 3)", fontsize=10)
    _finish_axes(axes)


def _draw_bars(
    axes: Axes, heights: Sequence[float], index: int, count: int, label: str, **style: Any
) -> None:
    """Draws bar number `index` of `count` in every group."""
    width = 0.85 / count
    centres = [group + (index - (count - 1) / 2) * width for group in range(len(heights))]
    bars = axes.bar(centres, heights, width, label=label, **style)
    axes.bar_label(bars, fmt="{:.0f}", fontsize=7, rotation=90, padding=3)


def _finish_axes(axes: Axes) -> None:
    axes.set_ylabel("KB (16-bit floats)")
    axes.margins(y=0.1)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=9)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("runs/studies/block_cost")
    parser.add_argument(
        "--out", type=Path, default=default, help=f"output folder (default {default})"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    costs = [cost for stage in _STAGES for cost in stage_costs(*stage)]
    networks = {network.__name__: materialised(network) for network in _NETWORKS}
    difference = max(difference_in_parts(*stage) for stage in _STAGES)
    console = Console()
    console.print(block_table(costs))
    console.print(
        f"Run in parts, outputs differ by at most {difference:.0e} of the largest output."
    )
    console.print()
    console.print(network_table(networks))
    document = {
        "blocks": [asdict(cost) for cost in costs],
        "difference_in_parts": difference,
        "networks": {
            name: {str(cells): asdict(tensor) for cells, tensor in tensors.items()}
            for name, tensors in networks.items()
        },
        "paper_table_3": _TABLE_3,
    }
    write_json(options.out / "block_cost.json", document)
    with atomic_write(options.out / "block_cost.png") as part:
        draw(costs, networks).savefig(part, dpi=120, format="png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
