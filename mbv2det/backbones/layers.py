"""Convolution, batch norm, activation: the building block of backbones and heads.

With it, the arithmetic of its strides: where on the image the cells of a feature map lie, and which
of them a coarser map would keep.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Padding = Literal["symmetric", "same"]


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None) -> int:
    """Rounds a channel count to a multiple of `divisor`, never losing more than a tenth.

    Source: TensorFlow slim, `mobilenet.py`, `_make_divisible`.
    """
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Conv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's `SAME`: the odd pixel goes right and below.

    With stride 2 on an even size this pads (0, 1) where PyTorch pads (1, 1), which shifts the
    sampling by one pixel: weights trained with one padding need that padding.
    """

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Pads by what this input's size needs, then convolves."""
        (top, bottom), (left, right) = (self._pad(input.shape[axis + 2], axis) for axis in (0, 1))
        return super().forward(F.pad(input, (left, right, top, bottom)))

    def _pad(self, size: int, axis: int) -> tuple[int, int]:
        stride, kernel, dilation = self.stride[axis], self.kernel_size[axis], self.dilation[axis]
        outputs = -(-size // stride)
        total = max(0, (outputs - 1) * stride + (kernel - 1) * dilation + 1 - size)
        return total // 2, total - total // 2


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    padding: Padding = "symmetric",
) -> nn.Conv2d:
    """A convolution whose output has ceil(size / stride) cells, under either padding rule."""
    kind = Conv2dSame if padding == "same" else nn.Conv2d
    return kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=0 if padding == "same" else dilation * (kernel_size - 1) // 2,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


def phase(size: int, padding: Padding) -> int:
    """Which of the first two positions a stride-2 convolution's first cell is centred on.

    0, but 1 for an even size under TensorFlow's `SAME`, which pads (0, 1) there: cell i is centred
    on position 2 i + 1.

    Args:
        size: Positions along the axis, before the convolution.
        padding: The convolution's border rule.
    """
    return int(padding == "same" and size % 2 == 0)


def subsample(
    x: Float[Tensor, "B C H W"], times: int, padding: Padding
) -> Float[Tensor, "B C h w"]:
    """The cells that so many stride-2 convolutions would be centred on: every 2**times-th.

    A convolution with stride is one without, subsampled; and what follows it computes the same
    from the subsampled map as it does, dilated twice as much, from the full one. Hence a network
    whose strides were replaced by dilation still holds, in these cells, all that it computed with
    them.

    Args:
        x: A feature map.
        times: Halvings of the grid.
        padding: Of those convolutions: at each halving the first cell kept is the `phase` of the
            size at hand.

    Source: the algorithme a trous, as in Chen et al. 2018 (arXiv:1606.00915) section 3.1.
    """
    for _ in range(times):
        x = x[..., phase(x.shape[-2], padding) :: 2, phase(x.shape[-1], padding) :: 2]
    return x


def cell_centres(
    size: int, stride: int, padding: Padding, device: torch.device | None = None
) -> Float[Tensor, " n"]:
    """Where on the network input the cells of a feature map are centred, along one axis.

    Multiples of the stride under symmetric padding; under `SAME` each even size on the way down
    shifts them by half of that level's step, to the right or below.

    Args:
        size: Pixels of the network input.
        stride: Pixels per cell: a power of two.
        padding: Of the convolutions on the way.
        device: Of the result.

    Returns:
        Pixel positions; the centre of the first pixel is 0.
    """
    first, step = 0, 1
    while step < stride:
        first += phase(size, padding) * step
        size, step = (size + 1) // 2, step * 2
    return first + step * torch.arange(size, dtype=torch.float32, device=device)


def grid_centres(
    image_size: tuple[int, int], stride: int, padding: Padding, device: torch.device | None = None
) -> tuple[Float[Tensor, " h"], Float[Tensor, " w"]]:
    """Rows and columns of the network input that the cells of a feature map are centred on.

    Args:
        image_size: (H, W) of the network input.
        stride: As in `cell_centres`.
        padding: As in `cell_centres`.
        device: Of the results.
    """
    height, width = image_size
    return (
        cell_centres(height, stride, padding, device),
        cell_centres(width, stride, padding, device),
    )


class ConvBNAct(nn.Sequential):
    """Convolution without bias, batch norm, activation.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Odd.
        stride: Of the convolution.
        dilation: Of the convolution (the atrous rate).
        groups: `in_channels` for a depthwise convolution.
        padding: Which rule pads the borders.
        norm_eps: Added to the variance.
        norm_momentum: Weight of the newest batch in the running statistics (PyTorch's sense:
            TensorFlow's decay 0.997 is 0.003).
        norm: Class of the batch norm.
        activation: Class of the activation; None for the linear bottleneck.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
        activation: type[nn.Module] | None = nn.ReLU6,
    ) -> None:
        super().__init__()
        self.conv = conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
            padding=padding,
        )
        self.norm = norm(out_channels, eps=norm_eps, momentum=norm_momentum)
        if activation is not None:
            self.act = activation(inplace=True)
