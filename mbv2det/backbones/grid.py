"""Positions of the cells of feature maps on the network input.

The positions follow from the padding of the stride-2 convolutions before the feature map. All sizes
are those of one axis, in pixels or cells, unless they are (height, width).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mbv2det.backbones.layers import Padding


def phase(size: int, padding: Padding) -> int:
    """Returns the position, 0 or 1, on which the first cell of a stride-2 convolution is centred.

    It is 0, except for an even size under TensorFlow's `SAME`: that pads (0, 1), so that cell i is
    centred on position 2 i + 1.

    Args:
        size: Number of positions along the axis, before the convolution.
        padding: Padding rule of the convolution.
    """
    return int(padding == "same" and size % 2 == 0)


def cell_centres(
    size: int, stride: int, padding: Padding, device: torch.device | None = None
) -> Float[Tensor, " n"]:
    """Returns the positions of the cell centres of a feature map along one axis of the input.

    Under symmetric padding they are the multiples of the stride. Under `SAME`, each stride-2
    convolution of an even size shifts them to the right (or down) by the distance between two
    neighbouring positions of its input.

    Args:
        size: Size of the network input along the axis, in pixels.
        stride: Input pixels per cell: a power of two.
        padding: Padding rule of the stride-2 convolutions before the feature map.
        device: Device of the result.

    Returns:
        Positions in pixels of the network input; the centre of the first pixel is 0.
    """
    first, step = 0, 1
    while step < stride:
        first += phase(size, padding) * step
        size, step = (size + 1) // 2, step * 2
    return first + step * torch.arange(size, dtype=torch.float32, device=device)


def grid_centres(
    image_size: tuple[int, int], stride: int, padding: Padding, device: torch.device | None = None
) -> tuple[Float[Tensor, " h"], Float[Tensor, " w"]]:
    """Returns the rows and columns of the input on which the cells of a feature map are centred.

    Args:
        image_size: (height, width) of the network input in pixels.
        stride: Input pixels per cell: a power of two.
        padding: Padding rule of the stride-2 convolutions before the feature map.
        device: Device of the results.

    Returns:
        Row and column positions in pixels of the network input, as `cell_centres` gives them.
    """
    height, width = image_size
    return (
        cell_centres(height, stride, padding, device),
        cell_centres(width, stride, padding, device),
    )
