"""Argmax of interpolated logits, computed where it is not already known from the cells.

Bilinear interpolation is a mean of the four cells around a position with weights that depend on the
position alone. So at every position between four cells, the largest value is at least the mean of
the values of any labels there. A label whose logits are below that mean at all four cells is
nowhere the largest between them, and only the other labels, the candidates, are interpolated:

- the mean is that of the labels with the largest logit at each of the four cells;
- where one label is the largest at all four, it is as a rule the only candidate, and the positions
  between them have its label without any interpolation;
- near ties stay candidates: a label has to be below the mean by more than rounding can make up.

The result is that of interpolating all logits, at every position, ties included.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from mbv2det.segmentation.resample import Neighbours, neighbours

# Roundings of float32, relative to the largest logit, of an interpolated value and of a mean of
# four: at most ten on either side of a comparison.
_ROUNDINGS = 20
# Positions interpolated at a time; their values stay in the cache of a core.
_MAX_POSITIONS = 2**16


def interpolated_argmax(
    logits: Float[Tensor, "L h w"],
    source: tuple[Float[Tensor, " h"], Float[Tensor, " w"]],
    target: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
) -> UInt8[Tensor, "H W"]:
    """Returns the label with the largest interpolated logit at every target position.

    Of equal logits, the first label's counts.

    Args:
        logits: Logits of each label on the cells of a grid.
        source: Rows and columns of the cells' centres; evenly spaced.
        target: Rows and columns to interpolate at, ascending, in the same units.
    """
    logits = logits.float().contiguous()
    quads = _Quads.of(logits)
    rows, columns = (
        _Blocks.of(neighbours(*axis), size)
        for axis, size in zip(zip(source, target, strict=True), logits.shape[1:], strict=True)
    )
    above_left = quads.largest[0].to(torch.uint8).view(len(rows.sizes), len(columns.sizes))
    # Columns first: whole rows are then copied, which is the faster of the two.
    labels = above_left.index_select(1, columns.neighbours.first)
    labels = labels.index_select(0, rows.neighbours.first)
    seen = (rows.sizes[:, None] * columns.sizes > 0).view(-1)
    (mixed,) = (seen & ~quads.uniform).nonzero(as_tuple=True)
    if len(mixed):
        _fill(labels, _Candidates.of(logits, quads, mixed), rows, columns)
    return labels


@dataclass(frozen=True)
class _Quads:
    """Every four neighbouring cells of a grid, Q in number, row by row.

    Attributes:
        cells: Indices of the cells above left, above right, below left and below right. On a grid
            of one row or column, cells stand for their neighbours as well.
        largest: Label with the largest logit at each of the cells.
        uniform: Whether one label is the largest everywhere between the four cells.
        margin: Difference of logits that rounding cannot make up.
    """

    cells: Int64[Tensor, "4 Q"]
    largest: Int64[Tensor, "4 Q"]
    uniform: Bool[Tensor, " Q"]
    margin: Float[Tensor, ""]

    @staticmethod
    def of(logits: Float[Tensor, "L h w"]) -> "_Quads":
        best, labels = logits.max(dim=0)
        second = logits.scatter(0, labels[None], -math.inf).amax(dim=0)
        largest = torch.stack(logits.aminmax()).abs().amax()
        margin = _ROUNDINGS * torch.finfo(torch.float32).eps * largest
        clear = best - second > margin
        cells = _cells_of_quads(best)
        largest_labels = labels.view(-1)[cells]
        uniform = (largest_labels == largest_labels[0]).all(dim=0) & clear.view(-1)[cells].all(
            dim=0
        )
        return _Quads(cells, largest_labels, uniform, margin)


def _cells_of_quads(grid: Float[Tensor, "h w"]) -> Int64[Tensor, "4 Q"]:
    """Returns the indices of the four cells of every quad."""
    height, width = grid.shape
    above, left = (torch.arange(max(size - 1, 1), device=grid.device) for size in (height, width))
    below, right = (above + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    corners = [
        (rows[:, None] * width + columns).view(-1)
        for rows in (above, below)
        for columns in (left, right)
    ]
    return torch.stack(corners)


@dataclass(frozen=True)
class _Candidates:
    """The labels that can be the largest somewhere between the four cells of quads.

    Attributes:
        quads: Index of each quad among all quads.
        labels: Candidates of each quad in ascending order. Quads with fewer candidates than the
            others have labels that cannot be the largest after them.
        logits: Logits of these labels at the four cells.
    """

    quads: Int64[Tensor, " q"]
    labels: Int64[Tensor, "M q"]
    logits: Float[Tensor, "M 4 q"]

    @staticmethod
    def of(
        logits: Float[Tensor, "L h w"], quads: _Quads, which: Int64[Tensor, " q"]
    ) -> "_Candidates":
        at_cells = logits.reshape(len(logits), -1)[:, quads.cells[:, which]]
        winners = quads.largest[:, which][:, None].expand(-1, 4, -1)
        mean = at_cells.gather(0, winners).mean(dim=0)
        highest = (at_cells - (mean - quads.margin)).amax(dim=1)
        candidates = ~(highest < 0)
        most = int(candidates.sum(dim=0).max())
        order = candidates.to(torch.uint8).argsort(dim=0, descending=True, stable=True)[:most]
        return _Candidates(which, order, at_cells.gather(0, order[:, None].expand(-1, 4, -1)))

    def split(self, quads: int) -> Iterator["_Candidates"]:
        """Yields parts of at most this number of quads."""
        for first in range(0, len(self.quads), quads):
            part = slice(first, first + quads)
            yield _Candidates(self.quads[part], self.labels[:, part], self.logits[..., part])


@dataclass(frozen=True)
class _Blocks:
    """Runs of target positions that lie between the same two cells, along one axis.

    Attributes:
        neighbours: Cells and weights of each position.
        starts: Index of the first position of each run.
        sizes: Number of positions of each run.
    """

    neighbours: Neighbours
    starts: Int64[Tensor, " n"]
    sizes: Int64[Tensor, " n"]

    @staticmethod
    def of(neighbours: Neighbours, num_cells: int) -> "_Blocks":
        sizes = neighbours.first.bincount(minlength=max(num_cells - 1, 1))
        return _Blocks(neighbours, sizes.cumsum(dim=0) - sizes, sizes)

    def positions(self, which: Int64[Tensor, " q"]) -> Int64[Tensor, "q m"]:
        """Returns the indices of the positions of runs; short runs repeat their last position."""
        sizes = self.sizes[which][:, None]
        steps = torch.arange(int(sizes.max()), device=which.device)
        return self.starts[which][:, None] + torch.minimum(steps, sizes - 1)


def _fill(
    labels: UInt8[Tensor, "H W"], candidates: _Candidates, rows: _Blocks, columns: _Blocks
) -> None:
    """Writes the labels of the positions between the cells of the candidates' quads."""
    positions_per_quad = int(rows.sizes.max() * columns.sizes.max())
    for part in candidates.split(max(1, _MAX_POSITIONS // positions_per_quad)):
        inside_rows = rows.positions(part.quads // len(columns.sizes))
        inside_columns = columns.positions(part.quads % len(columns.sizes))
        winners = _best_labels(
            part,
            rows.neighbours.weights(inside_rows),
            columns.neighbours.weights(inside_columns),
        )
        pixels = inside_rows[:, :, None] * labels.shape[1] + inside_columns[:, None, :]
        labels.view(-1).scatter_(0, pixels.view(-1), winners.view(-1))


def _best_labels(
    candidates: _Candidates,
    vertical: tuple[Float[Tensor, "q R"], Float[Tensor, "q R"]],
    horizontal: tuple[Float[Tensor, "q S"], Float[Tensor, "q S"]],
) -> UInt8[Tensor, "q R S"]:
    """Returns the first label with the largest interpolated logit at positions of each quad.

    On a CPU this is several times as fast as `max`, which finds indices one by one.

    Args:
        candidates: Labels to choose from, for each quad.
        vertical: Weights of the cells above and below, for each row of positions.
        horizontal: Weights of the cells on the left and on the right, for each column.
    """
    first, *others = candidates.labels.to(torch.uint8)[..., None, None]
    best = _interpolated(candidates.logits[0], vertical, horizontal)
    winners = first.expand_as(best).contiguous()
    for label, logits in zip(others, candidates.logits[1:], strict=True):
        values = _interpolated(logits, vertical, horizontal)
        # Labels ascend, so that the larger of two winners is the later one.
        winners = torch.maximum(winners, (values > best) * label)
        best = torch.maximum(best, values)
    return winners


def _interpolated(
    logits: Float[Tensor, "4 q"],
    vertical: tuple[Float[Tensor, "q R"], Float[Tensor, "q R"]],
    horizontal: tuple[Float[Tensor, "q S"], Float[Tensor, "q S"]],
) -> Float[Tensor, "q R S"]:
    """Interpolates logits between the cells of quads, first along rows, as `resample` does."""
    left, right = horizontal
    above, below = (logits[i, :, None] * left + logits[i + 1, :, None] * right for i in (0, 2))
    high, low = (weights[..., None] for weights in vertical)
    return above[:, None] * high + below[:, None] * low
