"""Convolution, batch norm, activation: the building block of backbones and heads."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.cpu_training import (
    FlippedKernelFunction,
    Float32BackwardFunction,
    ReLU6Function,
)

# Padding rule of convolutions: PyTorch's usual one, equal on both sides, or TensorFlow's `SAME`.
Padding = Literal["symmetric", "same"]


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None) -> int:
    """Rounds a channel count to a multiple of `divisor`, but never down by more than a tenth.

    Args:
        value: Channel count, possibly fractional.
        divisor: Number that the result is a multiple of.
        minimum: Smallest result; `divisor` by default.

    Source: TensorFlow slim `mobilenet.py`, `_make_divisible`.
    """
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Conv2d(nn.Conv2d):
    """A convolution with gradients in float32 where those in bfloat16 on a CPU are slow or wrong.

    Under bfloat16 autocast on a CPU (oneDNN, seen with torch 2.15), convolutions have these defects
    in their backward pass:

    - Of dilated depthwise ones in channels-last format, the gradients of the weights are wrong by
      more than their largest value, or NaN: parts of them come from uninitialised memory.
    - Of depthwise ones that are strided or larger than 3x3 it takes five times as long as in
      float32.
    - Of other depthwise ones the joint pass for input and weights takes half as long again as two
      passes.
    - If the input of a strided one is a single cell wide, weights that only meet padding get
      gradients from uninitialised memory instead of zero. The output does not depend on them at
      this size, but the optimiser drives them to huge values or NaN, which a larger input then
      meets.
    """

    def padded(self, input: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Returns the input, padded where the convolution cannot do it, and what is left to pad.

        Args:
            input: (B, C, H, W) input of the convolution.

        Returns:
            The input, and the rows and columns that the convolution adds on either side.
        """
        assert isinstance(self.padding, tuple)
        return input, self.padding

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Pads and convolves the input."""
        input, padding = self.padded(input)
        settings = self.stride, padding, self.dilation, self.groups
        if bias is None and _trains_in_bfloat16(input):
            needs_float32 = self._needs_float32_gradients(input)
            keeps_channels = self.out_channels == self.in_channels
            if self._is_depthwise() and keeps_channels and self.stride == (1, 1):
                return FlippedKernelFunction.apply(
                    input, weight, padding, self.dilation, needs_float32
                )
            if needs_float32:
                return Float32BackwardFunction.apply(input, weight, *settings)
        return F.conv2d(input, weight, bias, *settings)

    def _is_depthwise(self) -> bool:
        """Returns whether each channel is convolved by itself, with more than one weight."""
        return self.groups == self.in_channels and self.kernel_size != (1, 1)

    def _needs_float32_gradients(self, input: Tensor) -> bool:
        """Returns whether gradients in bfloat16 on a CPU would have one of those defects."""
        is_strided, is_dilated = self.stride != (1, 1), self.dilation != (1, 1)
        if self._is_depthwise():
            return is_strided or is_dilated or max(self.kernel_size) > 3
        return is_strided and input.shape[-1] == 1 and self.kernel_size != (1, 1)


def _trains_in_bfloat16(input: Tensor) -> bool:
    """Returns whether gradients of a convolution would be computed in bfloat16 on a CPU."""
    if input.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    in_bfloat16 = torch.get_autocast_dtype("cpu") == torch.bfloat16
    return torch.is_autocast_enabled("cpu") and in_bfloat16


class ReLU6(nn.ReLU6):
    """ReLU6 that needs half the memory of PyTorch's in training, and no copy."""

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Limits the input to 0..6."""
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and input.requires_grad):
            return super().forward(input)
        return ReLU6Function.apply(input)


class Conv2dSame(Conv2d):
    """A convolution with TensorFlow's `SAME` padding: an odd pixel goes to the right and bottom.

    With stride 2 on an even size this pads (0, 1) where PyTorch pads (1, 1), which shifts the
    sampling by one pixel. Weights need the padding rule that they were trained with.
    """

    def padded(self, input: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pads the input according to its size.

        Padding that is equal on both sides is left to the convolution, which copies nothing.
        """
        (top, bottom), (left, right) = self.pads(input.shape[2], input.shape[3])
        if (top, left) == (bottom, right):
            return input, (top, left)
        return F.pad(input, (left, right, top, bottom)), (0, 0)

    def pads(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns (top, bottom) and (left, right): the padding of an input of this size."""
        return self._pad(height, 0), self._pad(width, 1)

    def _pad(self, size: int, axis: int) -> tuple[int, int]:
        """Returns the padding before and after an axis of the given size."""
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
    """Returns a convolution whose output has ceil(size / stride) cells along each axis.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Height and width of the kernel: an odd number.
        stride: Stride of the convolution.
        dilation: Dilation of the kernel (the atrous rate).
        groups: Number of channel groups; `in_channels` for a depthwise convolution.
        bias: Whether to add a bias.
        padding: Padding rule; `same` is TensorFlow's.
    """
    conv_class = Conv2dSame if padding == "same" else Conv2d
    return conv_class(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=0 if padding == "same" else dilation * (kernel_size - 1) // 2,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


class ConvBNAct(nn.Sequential):
    """Convolution without bias, batch norm, activation.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Height and width of the kernel: an odd number.
        stride: Stride of the convolution.
        dilation: Dilation of the kernel (the atrous rate).
        groups: Number of channel groups; `in_channels` for a depthwise convolution.
        padding: Padding rule of the convolution.
        norm_eps: Epsilon of the batch norm, added to the variance.
        norm_momentum: Momentum of the batch norm in PyTorch's sense: the weight of the newest
            batch in the running statistics. TensorFlow's decay 0.997 is 0.003.
        norm: Class of the batch norm.
        activation: Class of the activation; None for no activation, as in the linear bottleneck.
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
        activation: type[nn.Module] | None = ReLU6,
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
