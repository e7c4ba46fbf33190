"""Convolution with batch norm and ReLU6: the building block of backbones and heads."""

from typing import Literal

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


class ConvBNReLU6(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6.

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
        activation: False leaves ReLU6 out: the linear bottleneck.
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
        activation: bool = True,
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
        self.norm = nn.BatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum)
        if activation:
            self.act = nn.ReLU6(inplace=True)
