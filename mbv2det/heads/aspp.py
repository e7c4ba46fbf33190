"""Atrous spatial pyramid pooling (Chen et al. 2017, arXiv:1706.05587, section 3.3)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.layers import ConvBNAct

_RATES_AT_16 = (6, 12, 18)


def atrous_rates(stride: int) -> tuple[int, ...]:
    """Returns the dilations of the three atrous convolutions.

    They are inversely proportional to the stride, so that the convolutions cover the same number
    of input pixels at every stride.

    Args:
        stride: Stride of the feature that they read: 8, 16 or 32.

    Source: DeepLabv3 section 3.3, for strides 16 and 8; stride 32 follows the same rule.
    """
    return tuple(rate * 16 // stride for rate in _RATES_AT_16)


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of image-wide averages: one value per image and channel.

    A batch of one image has no usable statistics: the mean equals the only value and the variance
    is zero, so that every image would be normalised to the same bias (PyTorch raises an error).
    Such a batch is normalised by the running statistics, as in evaluation, and does not update
    them.
    """

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Returns the normalised values."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel branches on one feature, joined by a 1x1.

    Args:
        in_channels: Channels of the feature.
        channels: Channels of every branch and of the output.
        rates: Dilations of the atrous branches; none for the mobile head.
        separable: Whether the atrous branches are depthwise separable.
        conv: Builder of the convolutions: `ConvBNAct` with the head's padding, norm and activation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        rates: tuple[int, ...],
        separable: bool,
        conv: Callable[..., ConvBNAct],
    ) -> None:
        super().__init__()

        def atrous(rate: int) -> nn.Module:
            if separable:
                return depthwise_separable(conv, in_channels, channels, dilation=rate)
            return conv(in_channels, channels, 3, dilation=rate)

        self.pool = conv(in_channels, channels, norm=PooledBatchNorm2d)
        self.pointwise = conv(in_channels, channels)
        self.atrous = nn.ModuleList(atrous(rate) for rate in rates)
        self.project = conv((2 + len(rates)) * channels, channels)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Returns the projected branches, joined in TensorFlow's order: pool, 1x1, atrous."""
        # Mean over the whole grid; TensorFlow pools over windows of the size of the training crop.
        pooled = self.pool(x.mean(dim=(2, 3), keepdim=True))
        pooled = F.interpolate(pooled, x.shape[2:])  # LiteRT's converter fails on expand
        branches = [pooled, self.pointwise(x), *(branch(x) for branch in self.atrous)]
        return self.project(torch.cat(branches, dim=1))


def depthwise_separable(
    conv: Callable[..., ConvBNAct], in_channels: int, out_channels: int, dilation: int = 1
) -> nn.Sequential:
    """Returns a depthwise 3x3 and a 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        conv(in_channels, in_channels, 3, dilation=dilation, groups=in_channels),
        conv(in_channels, out_channels),
    )
