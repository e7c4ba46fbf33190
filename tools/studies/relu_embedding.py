"""Shows what ReLU leaves of a 2-D shape in n dimensions: figure 1 of the MobileNetV2 paper.

    python tools/studies/relu_embedding.py

A spiral is embedded in n dimensions by a random matrix T, passes ReLU, and is brought back by T's
pseudo-inverse. In few dimensions ReLU destroys the shape; in many it only bends it. That is why a
block with thin ends needs linear ends (paper section 3.2, appendix A). Over many matrices:

- lost: the share of points that keep fewer than two positive dimensions. ReLU has flattened their
  surroundings to a line or a point, which no later layer can undo. Each dimension is positive with
  probability 1/2, so (n + 1) / 2^n are to be expected.
- error: of what the pseudo-inverse, a linear layer, brings back, relative to the size of the
  spiral. The scale is not counted as error: ReLU halves whatever it leaves whole.

Writes relu_embedding.png and relu_embedding.json into --out, in seconds.
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

_DIMENSIONS = (2, 3, 5, 15, 30)  # the paper's
_TURNS = 2.5
_PERCENTILES = (5, 50, 95)
_LOST_COLOUR = "0.6"

Points = Float[np.ndarray, "P 2"]
Matrices = Float[np.ndarray, "M n 2"]
Hidden = Float[np.ndarray, "M P n"]
Found = Float[np.ndarray, "M P 2"]


@dataclass(frozen=True)
class Survival:
    """What is left after ReLU in some number of dimensions.

    Attributes:
        dimensions: n.
        lost: Share of points, over all matrices.
        lost_expected: The same by probability.
        error: 5th, 50th and 95th percentile over the matrices.
    """

    dimensions: int
    lost: float
    lost_expected: float
    error: tuple[float, float, float]


@dataclass(frozen=True)
class Panel:
    """The shape after one matrix, for a picture.

    Attributes:
        found: Where the points end.
        lost: Which of them are lost.
    """

    found: Points
    lost: Bool[np.ndarray, " P"]


def spiral(count: int = 300) -> Points:
    """Points on an Archimedean spiral, at equal angles; the last at distance 1 from the centre."""
    # Without the centre, which every matrix keeps where it is.
    angle = np.linspace(0, 2 * np.pi * _TURNS, count + 1)[1:]
    return angle[:, None] / angle[-1] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def embed(points: Points, matrices: Matrices) -> Hidden:
    """T x, of every matrix and point."""
    return points @ matrices.transpose(0, 2, 1)


def bring_back(hidden: Hidden, matrices: Matrices, points: Points) -> Found:
    """Through the pseudo-inverse of T, at the scale that brings the shape nearest to `points`."""
    found = hidden @ np.linalg.pinv(matrices).transpose(0, 2, 1)
    overlap = (found * points).sum(axis=(1, 2), keepdims=True)
    return found * overlap / np.square(found).sum(axis=(1, 2), keepdims=True)


def relative_error(found: Found, points: Points) -> Float[np.ndarray, " M"]:
    """Distance between the shapes, in sizes of the right one; 0 is exact, 1 is no better than 0."""
    return np.linalg.norm(found - points, axis=(1, 2)) / np.linalg.norm(points)


def lost_points(activated: Hidden) -> Bool[np.ndarray, "M P"]:
    """Where ReLU leaves fewer than two dimensions that move with the point."""
    return (activated > 0).sum(axis=2) < 2


def study(
    points: Points, dimensions: int, num_matrices: int, rng: np.random.Generator
) -> tuple[Survival, Panel]:
    """Measures over random matrices; the panel shows the one of median error."""
    matrices = rng.standard_normal((num_matrices, dimensions, 2))
    activated = np.maximum(embed(points, matrices), 0)
    found = bring_back(activated, matrices, points)
    error, lost = relative_error(found, points), lost_points(activated)
    low, median, high = (float(v) for v in np.percentile(error, _PERCENTILES))
    survival = Survival(
        dimensions, float(lost.mean()), (dimensions + 1) / 2**dimensions, (low, median, high)
    )
    typical = int(np.argsort(error)[num_matrices // 2])
    return survival, Panel(found[typical], lost[typical])


def print_table(results: Sequence[Survival], num_matrices: int) -> None:
    """One row per number of dimensions."""
    table = Table(title=f"A spiral after ReLU in n dimensions, {num_matrices} random matrices")
    for heading in ("n", "lost", "lost, expected", "error, median", "error, 5% to 95%"):
        table.add_column(heading, justify="right")
    for one in results:
        low, median, high = one.error
        table.add_row(
            str(one.dimensions),
            f"{one.lost:.2%}",
            f"{one.lost_expected:.2%}",
            f"{median:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    Console().print(table)


def draw(points: Points, results: Sequence[Survival], panels: Sequence[Panel]) -> Figure:
    """The paper's figure above, the measurements below."""
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
    """The points, coloured along the spiral; grey ones are lost."""
    (x, y), lost = panel.found.T, panel.lost
    order = np.arange(len(x))
    axes.scatter(x[lost], y[lost], s=5, color=_LOST_COLOUR)
    axes.scatter(x[~lost], y[~lost], s=5, c=order[~lost], vmin=0, vmax=len(x), cmap="viridis")
    share = f"\n{lost.mean():.0%} lost (grey)" if lost.any() else "\nnothing lost"
    axes.set_title(title if title == "input" else title + share, fontsize=10)
    axes.set_aspect("equal", "datalim")
    axes.set(xticks=[], yticks=[])


def _draw_lost(axes: Axes, results: Sequence[Survival]) -> None:
    axes.plot(
        [r.dimensions for r in results], [100 * r.lost for r in results], "o", label="measured"
    )
    n = np.arange(results[0].dimensions, results[-1].dimensions + 1)
    axes.plot(n, 100 * (n + 1) / 2.0**n, color="0.4", label="expected: (n + 1) / 2$^n$")
    axes.set_title("Points that nothing can bring back", fontsize=10)
    axes.set_ylabel("% of points")
    _finish(axes, results)


def _draw_error(axes: Axes, results: Sequence[Survival]) -> None:
    n = [r.dimensions for r in results]
    low, median, high = zip(*(r.error for r in results), strict=True)
    axes.plot(n, median, "o-", label="median")
    axes.fill_between(n, low, high, alpha=0.2, label="5% to 95% of the matrices")
    axes.set_title("Error of what the pseudo-inverse brings back", fontsize=10)
    axes.set_ylabel("relative to the spiral")
    _finish(axes, results)


def _finish(axes: Axes, results: Sequence[Survival]) -> None:
    ticks = [r.dimensions for r in results]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("dimensions n")
    axes.grid(alpha=0.3)
    axes.legend()


def main() -> None:
    """Measures, prints, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--matrices", type=int, default=1000, help="random matrices per n (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random matrices (0)")
    default = Path("runs/studies/relu_embedding")
    parser.add_argument("--out", type=Path, default=default, help=f"folder ({default})")
    options = parser.parse_args()
    points, rng = spiral(), np.random.default_rng(options.seed)
    studied = [study(points, n, options.matrices, rng) for n in _DIMENSIONS]
    results, panels = zip(*studied, strict=True)
    print_table(results, options.matrices)
    write_json(options.out / "relu_embedding.json", [asdict(one) for one in results])
    with atomic_write(options.out / "relu_embedding.png") as part:
        draw(points, results, panels).savefig(part, dpi=120, format="png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
