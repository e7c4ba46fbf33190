"""Shows how much of a 2-D shape survives ReLU in n dimensions: figure 1 of the MobileNetV2 paper.

    python tools/studies/relu_embedding.py

A spiral is embedded in n dimensions by a random matrix T, passes through ReLU, and is mapped back
by the pseudo-inverse of T. In few dimensions ReLU destroys the shape; in many it only bends it.
That is why the narrow ends of a block must be linear (section 3.2 and appendix A of the paper). The
study measures over many matrices:

- lost: the share of points with fewer than two positive dimensions. ReLU has collapsed the
  neighbourhood of such a point to a line or to a point, which no later layer can undo. Each
  dimension is positive with probability 1/2, so the expected share is (n + 1) / 2^n.
- error: the distance of the points that the pseudo-inverse (a linear layer) maps back from the
  original points, relative to the size of the spiral. A different scale is not counted as an error:
  ReLU halves a shape even where it loses nothing.

Writes relu_embedding.png and relu_embedding.json into --out; takes seconds.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mbv2det.atomic_write import atomic_write, write_json

_DIMENSIONS = (2, 3, 5, 15, 30)  # those of the paper's figure
_TURNS = 2.5
_PERCENTILES = (5, 50, 95)
_LOST_COLOUR = "0.6"

Points = Float[np.ndarray, "P 2"]
Matrices = Float[np.ndarray, "M n 2"]
Hidden = Float[np.ndarray, "M P n"]
Reconstructed = Float[np.ndarray, "M P 2"]


@dataclass(frozen=True)
class InformationLoss:
    """Information that ReLU destroys in n dimensions, measured over random matrices.

    Attributes:
        dimensions: Number of dimensions n.
        lost: Share of the points that are lost, over all matrices.
        lost_expected: Expected share of lost points.
        error: 5th, 50th and 95th percentile of the relative error over the matrices.
    """

    dimensions: int
    lost: float
    lost_expected: float
    error: tuple[float, float, float]


@dataclass(frozen=True)
class Panel:
    """The shape after one matrix, for the figure.

    Attributes:
        points: The points, mapped back.
        lost: Whether each point is lost.
    """

    points: Points
    lost: Bool[np.ndarray, " P"]


def spiral(count: int = 300) -> Points:
    """Returns points on an Archimedean spiral at equal angles; the last is 1 from the centre."""
    # Without the centre, which every matrix maps to the centre.
    angle = np.linspace(0, 2 * np.pi * _TURNS, count + 1)[1:]
    return angle[:, None] / angle[-1] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def embed(points: Points, matrices: Matrices) -> Hidden:
    """Returns T x for every matrix T and every point x."""
    return points @ matrices.transpose(0, 2, 1)


def reconstruct(hidden: Hidden, matrices: Matrices, points: Points) -> Reconstructed:
    """Maps points back by the pseudo-inverse of each T, at the scale nearest to `points`."""
    shapes = hidden @ np.linalg.pinv(matrices).transpose(0, 2, 1)
    overlap = (shapes * points).sum(axis=(1, 2), keepdims=True)
    return shapes * overlap / np.square(shapes).sum(axis=(1, 2), keepdims=True)


def relative_error(reconstructed: Reconstructed, points: Points) -> Float[np.ndarray, " M"]:
    """Returns the distance of each shape from the original, relative to the original's size.

    0 is exact; 1 is as far away as a shape collapsed to the centre.
    """
    return np.linalg.norm(reconstructed - points, axis=(1, 2)) / np.linalg.norm(points)


def lost_points(activated: Hidden) -> Bool[np.ndarray, "M P"]:
    """Returns the points with fewer than two positive dimensions after ReLU."""
    return (activated > 0).sum(axis=2) < 2


def measure(
    points: Points, dimensions: int, num_matrices: int, rng: np.random.Generator
) -> tuple[InformationLoss, Panel]:
    """Measures n dimensions over random matrices.

    Args:
        points: The shape.
        dimensions: Number of dimensions n.
        num_matrices: Number of random matrices.
        rng: Source of the matrices' entries, which are standard normal.

    Returns:
        The measurements, and the shape after the matrix of median error.
    """
    matrices = rng.standard_normal((num_matrices, dimensions, 2))
    activated = np.maximum(embed(points, matrices), 0)
    reconstructed = reconstruct(activated, matrices, points)
    error, lost = relative_error(reconstructed, points), lost_points(activated)
    low, median, high = (float(v) for v in np.percentile(error, _PERCENTILES))
    loss = InformationLoss(
        dimensions, float(lost.mean()), (dimensions + 1) / 2**dimensions, (low, median, high)
    )
    typical = int(np.argsort(error)[num_matrices // 2])
    return loss, Panel(reconstructed[typical], lost[typical])


def print_table(results: Sequence[InformationLoss], num_matrices: int) -> None:
    """Prints one row for each number of dimensions."""
    table = Table(title=f"A spiral after ReLU in n dimensions, {num_matrices} random matrices")
    for heading in ("n", "lost", "lost, expected", "error, median", "error, 5% to 95%"):
        table.add_column(heading, justify="right")
    for result in results:
        low, median, high = result.error
        table.add_row(
            str(result.dimensions),
            f"{result.lost:.2%}",
            f"{result.lost_expected:.2%}",
            f"{median:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    Console().print(table)


def draw(points: Points, results: Sequence[InformationLoss], panels: Sequence[Panel]) -> Figure:
    """Returns the figure: the paper's panels above, the measurements below."""
    with style.context("petroff10"):
        figure = Figure(figsize=(12, 6), layout="constrained")
        figure.suptitle("ReLU destroys a shape in few dimensions and only bends it in many")
        grid = figure.add_gridspec(2, 6, height_ratios=(1, 1.3))
        nothing_lost = Panel(points, np.zeros(len(points), dtype=bool))
        titles = ["input", *(f"n = {r.dimensions}" for r in results)]
        for column, (title, panel) in enumerate(zip(titles, [nothing_lost, *panels], strict=True)):
            _draw_panel(figure.add_subplot(grid[0, column]), panel, title)
        _draw_lost(figure.add_subplot(grid[1, :3]), results)
        _draw_error(figure.add_subplot(grid[1, 3:]), results)
    return figure


def _draw_panel(axes: Axes, panel: Panel, title: str) -> None:
    """Draws the points, coloured along the spiral; lost points are grey."""
    (x, y), lost = panel.points.T, panel.lost
    order = np.arange(len(x))
    axes.scatter(x[lost], y[lost], s=5, color=_LOST_COLOUR)
    axes.scatter(x[~lost], y[~lost], s=5, c=order[~lost], vmin=0, vmax=len(x), cmap="viridis")
    share = f"\n{lost.mean():.0%} lost (grey)" if lost.any() else "\nnothing lost"
    axes.set_title(title if title == "input" else title + share, fontsize=10)
    axes.set_aspect("equal", "datalim")
    axes.set(xticks=[], yticks=[])


def _draw_lost(axes: Axes, results: Sequence[InformationLoss]) -> None:
    axes.plot(
        [r.dimensions for r in results], [100 * r.lost for r in results], "o", label="measured"
    )
    n = np.arange(results[0].dimensions, results[-1].dimensions + 1)
    axes.plot(n, 100 * (n + 1) / 2.0**n, color="0.4", label="expected: (n + 1) / 2$^n$")
    axes.set_title("Points that no later layer can recover", fontsize=10)
    axes.set_ylabel("% of points")
    _finish_axes(axes, results)


def _draw_error(axes: Axes, results: Sequence[InformationLoss]) -> None:
    n = [r.dimensions for r in results]
    low, median, high = zip(*(r.error for r in results), strict=True)
    axes.plot(n, median, "o-", label="median")
    axes.fill_between(n, low, high, alpha=0.2, label="5% to 95% of the matrices")
    axes.set_title("Error after mapping back by the pseudo-inverse", fontsize=10)
    axes.set_ylabel("relative to the size of the spiral")
    _finish_axes(axes, results)


def _finish_axes(axes: Axes, results: Sequence[InformationLoss]) -> None:
    ticks = [r.dimensions for r in results]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dimensions n")
    axes.grid(alpha=0.3)
    axes.legend()


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--matrices",
        type=int,
        default=1000,
        help="number of random matrices for each n (default 1000)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random matrices (default 0)"
    )
    default = Path("runs/studies/relu_embedding")
    parser.add_argument(
        "--out", type=Path, default=default, help=f"output folder (default {default})"
    )
    options = parser.parse_args()
    points, rng = spiral(), np.random.default_rng(options.seed)
    measured = [measure(points, n, options.matrices, rng) for n in _DIMENSIONS]
    results, panels = zip(*measured, strict=True)
    print_table(results, options.matrices)
    write_json(options.out / "relu_embedding.json", [asdict(result) for result in results])
    with atomic_write(options.out / "relu_embedding.png") as part:
        draw(points, results, panels).savefig(part, dpi=120, format="png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
