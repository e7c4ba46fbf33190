"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861): a stack of depthwise separable convolutions.

The MobileNetV2 paper compares MobileNetV2 with this network, with the same heads.

- The layers have TensorFlow's names, `Conv2d_0` (the stem) to `Conv2d_13`; the output of every
  layer is a feature.
- It has no shortcuts and no narrow layers between the wide ones, and every convolution is followed
  by an activation.
- Output stride and padding are as in `MobileNetV2`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.dilation import Dilation
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.layers import ConvBNAct, Padding

# Table 1 of the paper: channels and stride of the stem, then of every separable layer.
_STEM = (32, 2)
_SEPARABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *5 * ((512, 1),),
    (1024, 2),
    (1024, 1),
)
_MIN_CHANNELS = 8
_LAST_FEATURE = Feature("Conv2d_13")


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3x3, then 1x1, each with batch norm and activation (paper section 3.1, figure 3).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Stride of the depthwise convolution.
        dilation: Dilation of the depthwise convolution.
        conv: Builder of the convolutions: `ConvBNAct` with the network's padding and norm settings.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        conv: Callable[..., ConvBNAct],
    ) -> None:
        super().__init__()
        self.depthwise = conv(
            in_channels, in_channels, 3, stride=stride, dilation=dilation, groups=in_channels
        )
        self.pointwise = conv(in_channels, out_channels)


class MobileNetV1(Backbone):
    """MobileNetV1 with an optional ImageNet-style classifier.

    Args:
        width_mult: Multiplier of every channel count; the result is rounded down and at least
            8.
        output_stride: Input pixels per cell of the last feature: 32, or 16 or 8 by dilation.
        num_classes: Number of classes of a classifier (average pool, dropout, linear); None for no
            classifier.
        out_features: Features that `forward` returns, at their own or a coarser stride.
        padding: Padding rule; `same` is TensorFlow's, for weights trained with TensorFlow.
        norm_eps: Epsilon of the batch norms: 1e-3 in TensorFlow's weights.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.
        dropout: Dropout probability before the classifier; the default is slim's.

    Raises:
        ValueError: For an unknown output stride, an unknown feature, or a feature at a stride that
            it cannot have.

    Source: paper table 1 and section 3.3; TensorFlow slim `mobilenet_v1.py`.
    """

    head_features = HeadFeatures(
        stride_4=Feature("Conv2d_3"),
        stride_8=Feature("Conv2d_5"),
        stride_16=Feature("Conv2d_11", stride=16),
        stride_32=Feature("Conv2d_13", stride=32),
        auxiliary=Feature("Conv2d_11"),
        dense=_LAST_FEATURE,
        last=_LAST_FEATURE,
    )

    def __init__(
        self,
        width_mult: float = 1.0,
        output_stride: int = 32,
        num_classes: int | None = None,
        *,
        out_features: Sequence[Feature] = (_LAST_FEATURE,),
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        dropout: float = 0.001,
    ) -> None:
        conv = partial(ConvBNAct, padding=padding, norm_eps=norm_eps, norm_momentum=norm_momentum)
        dilation = Dilation(output_stride)
        base_channels, nominal_stride = _STEM
        channels = _scaled(base_channels, width_mult)
        stride, _ = dilation.step(nominal_stride)
        layers: dict[str, nn.Module] = {"Conv2d_0": conv(3, channels, 3, stride=stride)}
        specs = {Feature("Conv2d_0"): FeatureSpec(channels, dilation.stride)}
        for index, (base_channels, nominal_stride) in enumerate(_SEPARABLE, start=1):
            in_channels, channels = channels, _scaled(base_channels, width_mult)
            stride, rate = dilation.step(nominal_stride)
            name = f"Conv2d_{index}"
            layers[name] = DepthwiseSeparable(
                in_channels, channels, stride=stride, dilation=rate, conv=conv
            )
            specs[Feature(name)] = FeatureSpec(channels, dilation.stride)
        super().__init__(
            layers,
            specs,
            out_features=out_features,
            num_classes=num_classes,
            dropout=dropout,
            padding=padding,
        )
        self._initialise()

    def forward(
        self, images: Float[Tensor, "B 3 H W"], out_features: Sequence[Feature] | None = None
    ) -> dict[Feature, Tensor]:
        """Returns features of normalised images; see `Backbone.forward`."""
        collector = self.collector(out_features)
        x: Tensor = images
        for name, layer in self.layers.items():
            x = layer(x)
            collector.add(Feature(name), x)
        return collector.features()

    def _initialise(self) -> None:
        """Sets the weights with which training from scratch starts.

        | layer | initial values |
        |---|---|
        | convolutions | Kaiming normal, fan out (slim: truncated normal 0.09) |
        | batch norm | weight 1, bias 0 |
        | classifier | normal 0.01, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _scaled(channels: int, width_mult: float) -> int:
    """Returns slim's channel count for this network, which is not rounded to a multiple of 8."""
    return max(int(channels * width_mult), _MIN_CHANNELS)
