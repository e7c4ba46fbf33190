"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861): depthwise separable convolutions in a row.

What the MobileNetV2 paper compares itself with, on the same heads.

- Layers carry TensorFlow's names, `Conv2d_0` (the stem) to `Conv2d_13`; every layer's output is a
  feature.
- No shortcuts, no thin layers between the thick ones, an activation behind every convolution.
- Output stride and padding are as in `MobileNetV2`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from mbv2det.backbones.features import Backbone, Dilation, FeatureSpec, Taps
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
_LAST_LAYER = "Conv2d_13"


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3x3, then 1x1, each with batch norm and activation (paper section 3.1, figure 3).

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        stride: Of the depthwise convolution.
        dilation: Of the depthwise convolution.
        conv: Makes the convolutions: `ConvBNAct` with the network's padding and norm settings.
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
    """The backbone, with an optional ImageNet-style classifier.

    Args:
        width_mult: Multiplies every channel count; the fraction is cut, at least 8 stay.
        output_stride: Input pixels per cell of the last feature: 32, or 16 or 8 by dilation.
        num_classes: Builds a classifier (average pool, dropout, linear); None builds none.
        out_features: Names that `forward` returns, each with `@` and a stride appended where a
            coarser grid is wanted than the feature has.
        padding: `same` pads as TensorFlow does: for weights that were trained there.
        norm_eps: Of batch norm: 1e-3 in TensorFlow's weights.
        norm_momentum: Of batch norm, in PyTorch's sense.
        dropout: In front of the classifier; slim's default.

    Raises:
        ValueError: For an output stride or a feature that does not exist, or a feature at a stride
            that it cannot be brought to.

    Source: paper table 1 and section 3.3; TensorFlow slim `mobilenet_v1.py`.
    """

    taps = Taps(
        detection=("Conv2d_11@16", "Conv2d_13@32"),
        segmentation=_LAST_LAYER,
        auxiliary="Conv2d_11",
        stride_8="Conv2d_5",
        stride_4="Conv2d_3",
        classification=_LAST_LAYER,
    )

    def __init__(
        self,
        width_mult: float = 1.0,
        output_stride: int = 32,
        num_classes: int | None = None,
        *,
        out_features: Sequence[str] = (_LAST_LAYER,),
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
        specs = {"Conv2d_0": FeatureSpec(channels, dilation.stride)}
        for index, (base_channels, nominal_stride) in enumerate(_SEPARABLE, start=1):
            inputs, channels = channels, _scaled(base_channels, width_mult)
            stride, rate = dilation.step(nominal_stride)
            name = f"Conv2d_{index}"
            layers[name] = DepthwiseSeparable(
                inputs, channels, stride=stride, dilation=rate, conv=conv
            )
            specs[name] = FeatureSpec(channels, dilation.stride)
        super().__init__(
            layers,
            specs,
            out_features=out_features,
            num_classes=num_classes,
            dropout=dropout,
            padding=padding,
        )
        self._initialise()

    def _initialise(self) -> None:
        """How training from scratch begins.

        | layer | start |
        |---|---|
        | convolutions | Kaiming normal, fan out (slim: truncated normal 0.09) |
        | batch norm | weight 1, bias 0 |
        | classifier | normal 0.01, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _scaled(channels: int, width_mult: float) -> int:
    """Slim's rule for this network, which knows no multiples of 8."""
    return max(int(channels * width_mult), _MIN_CHANNELS)
