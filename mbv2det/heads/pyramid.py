"""A light feature pyramid: three features exchange what they know, and a fourth is added.

Source: PANet (Liu et al. 2018, arXiv:1803.01534), sections 3.1 and 3.2: a path from coarse to fine,
then one from fine to coarse. PicoDet (Yu et al. 2021, arXiv:2111.00902), section 3.2 ("CSP-PAN"):
equal channels on all levels, depthwise separable 5x5 convolutions, an extra level at twice the
coarsest stride.
Differs: features are added, where PicoDet concatenates them and reduces the channels again by a
block of two branches; the extra level reads the coarsest level of the second path alone.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.layers import ConvBNAct


class LightPyramid(nn.Module):
    """Adds context to fine features and detail to coarse ones, by depthwise separable convolutions.

    Args:
        in_channels: Channels of the features, the finest first; each has half the grid of the one
            before.
        channels: Channels of all levels.
        kernel_size: Height and width of the depthwise kernels.
        conv: Builder of the convolutions: `ConvBNAct` with padding and norm settings.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        kernel_size: int,
        conv: Callable[..., ConvBNAct],
    ) -> None:
        super().__init__()

        def separable(stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                conv(channels, channels, kernel_size, stride=stride, groups=channels),
                conv(channels, channels),
            )

        num_steps = len(in_channels) - 1
        self.laterals = nn.ModuleList(conv(c, channels) for c in in_channels)
        self.merges_down = nn.ModuleList(separable() for _ in range(num_steps))
        self.reductions = nn.ModuleList(separable(stride=2) for _ in range(num_steps))
        self.merges_up = nn.ModuleList(separable() for _ in range(num_steps))
        self.extra = separable(stride=2)

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Tensor]:
        """Returns one feature map more than it gets, the finest first.

        Args:
            features: Feature maps, the finest first.
        """
        levels = [
            lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)
        ]
        for level in reversed(range(len(levels) - 1)):
            finer = levels[level]
            context = F.interpolate(levels[level + 1], size=finer.shape[-2:], mode="nearest")
            levels[level] = self.merges_down[level](finer + context)
        for level in range(1, len(levels)):
            detail = self.reductions[level - 1](levels[level - 1])
            levels[level] = self.merges_up[level - 1](levels[level] + detail)
        return [*levels, self.extra(levels[-1])]
