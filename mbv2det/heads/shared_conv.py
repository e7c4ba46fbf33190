"""A convolution that all levels of a detector share, with batch norm statistics of each level."""

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.layers import Padding, ReLU6, conv2d


class SharedConv(nn.Module):
    """Convolution, batch norm of the level, ReLU6.

    Levels differ in the mean and variance of their features, so that one batch norm for all of them
    would normalise none. The weights of the convolution see all objects alike, small and large.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Height and width of the kernel: an odd number.
        num_levels: Number of levels.
        groups: Number of channel groups; `in_channels` for a depthwise convolution.
        padding: Padding rule of the convolution.
        norm_eps: Epsilon of the batch norms.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.

    Source: RTMDet (Lyu et al. 2022, arXiv:2212.07784), section 3.2, "shared head".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        num_levels: int,
        groups: int = 1,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.03,
    ) -> None:
        super().__init__()
        self.conv: nn.Module = conv2d(
            in_channels, out_channels, kernel_size, groups=groups, padding=padding
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum)
            for _ in range(num_levels)
        )
        self.act = ReLU6(inplace=True)

    def forward(self, x: Float[Tensor, "B C h w"], level: int) -> Float[Tensor, "B D h w"]:
        """Returns the output for a feature map of one level.

        Args:
            x: Feature map.
            level: Index of its level.
        """
        return self.act(self.norms[level](self.conv(x)))
