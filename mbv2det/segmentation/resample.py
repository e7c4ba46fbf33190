"""Bilinear interpolation between grids whose cells are at known positions.

DeepLab interpolates logits to full size with aligned corners, which is exact only for inputs of
16 n + 1 pixels. Here the cells carry their positions: the result is exact for every input size, and
equals DeepLab's for those.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def resample(
    values: Float[Tensor, "B C h w"],
    source: tuple[Float[Tensor, " h"], Float[Tensor, " w"]],
    target: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
) -> Float[Tensor, "B C H W"]:
    """Interpolates the values of one grid at the positions of another.

    Beyond the outermost cells the values are constant. The computation is two matrix products, so
    that gradients are deterministic on every device, and always in float32.

    Args:
        values: Value of each cell of the source grid.
        source: Rows and columns of the source cells' centres; evenly spaced.
        target: Rows and columns to interpolate at, in the same units.
    """
    device = values.device.type
    # The meta device, on which networks are counted, has no autocast to switch off.
    has_autocast = torch.amp.is_autocast_available(device)
    with torch.autocast(device, enabled=False) if has_autocast else nullcontext():
        vertical, horizontal = (
            bilinear_weights(cells, positions)
            for cells, positions in zip(source, target, strict=True)
        )
        return vertical @ (values.float() @ horizontal.T)


def bilinear_weights(
    source: Float[Tensor, " n"], target: Float[Tensor, " m"]
) -> Float[Tensor, "m n"]:
    """Returns the weight of each source cell at each target position, along one axis.

    The weight falls linearly from 1 at the cell's centre to 0 at the centres of its neighbours.

    Args:
        source: Centres of the cells; evenly spaced.
        target: Positions to interpolate at, in the same units.
    """
    cells = torch.arange(len(source), device=source.device, dtype=torch.float32)
    return (1 - (_indices(source, target)[:, None] - cells).abs()).clamp(min=0)


@dataclass(frozen=True)
class Neighbours:
    """The two cells on either side of each target position along one axis, and their weights.

    Attributes:
        first: Index of the first of the two cells; the other is the next one. On an axis of one
            cell, both are that cell.
        distance: Distance from the first cell's centre, in cells: 0..1.
    """

    first: Int64[Tensor, " m"]
    distance: Float[Tensor, " m"]

    def weights(
        self, which: Int64[Tensor, "*shape"]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Returns the weights of the first and of the second cell at the given positions.

        They are those of `bilinear_weights`.

        Args:
            which: Indices of target positions.
        """
        distance = self.distance[which]
        return 1 - distance, 1 - (1 - distance)


def neighbours(source: Float[Tensor, " n"], target: Float[Tensor, " m"]) -> Neighbours:
    """Returns the cells that `resample` interpolates between at each target position.

    Args:
        source: Centres of the cells; evenly spaced.
        target: Positions to interpolate at, in the same units.
    """
    indices = _indices(source, target)
    first = indices.floor().clamp(max=max(len(source) - 2, 0))
    return Neighbours(first.long(), indices - first)


def _indices(source: Float[Tensor, " n"], target: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Returns target positions in cells, from 0 to n - 1."""
    spacing = source[1] - source[0] if len(source) > 1 else torch.ones((), device=source.device)
    return ((target - source[0]) / spacing).clamp(0, len(source) - 1)
