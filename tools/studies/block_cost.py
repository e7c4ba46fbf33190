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
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mbv2det.atomic_write import atomic_write, write_json
from mbv2det.backbones import MobileNetV1, MobileNetV2

_STAGES = ((24, 56), (32, 28), (64, 14), (96, 14), (160, 7))  # channels, cells; paper table 2
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
    axes.set_xlabel(f"cells (image of {IMAGE_SIZE} pixels)")
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
    with atomic_write(options.out / "block_cost.png") as part:
        draw(costs, networks).savefig(part, dpi=120, format="png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
