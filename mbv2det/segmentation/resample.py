"""Bilinear interpolation between grids whose cells lie at known positions.

DeepLab's logits are brought to full size with corners aligned, which is right only for inputs of
16 n + 1 pixels. Cells that carry their positions are right at every size, and equal to that one at
those.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def resample(
    values: Float[Tensor, "B C h w"],
    at: tuple[Float[Tensor, " h"], Float[Tensor, " w"]],
    to: tuple[Float[Tensor, " H"], Float[Tensor, " W"]],
) -> Float[Tensor, "B C H W"]:
    """Values of a grid at the positions of another; beyond the outermost cells, those cells'.

    Two matrix products, so that gradients are deterministic on every device; always in float32.

    Args:
        values: Of the grid's cells.
        at: Rows and columns that the cells are centred on, evenly spaced.
        to: Rows and columns to give values for, in the same units.
    """
    with torch.autocast(values.device.type, enabled=False):
        vertical, horizontal = (_hats(cells, wanted) for cells, wanted in zip(at, to, strict=True))
        return vertical @ (values.float() @ horizontal.T)


def _hats(at: Float[Tensor, " n"], to: Float[Tensor, " m"]) -> Float[Tensor, "m n"]:
    """Weight of every cell for every wanted position: 1 at the cell, 0 from its neighbours on."""
    cells = torch.arange(len(at), device=at.device, dtype=torch.float32)
    spacing = at[1] - at[0] if len(at) > 1 else torch.ones((), device=at.device)
    positions = ((to - at[0]) / spacing).clamp(0, len(at) - 1)
    return (1 - (positions[:, None] - cells).abs()).clamp(min=0)
