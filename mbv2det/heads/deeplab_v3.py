"""DeepLabv3 (Chen et al. 2017, arXiv:1706.05587), as the MobileNetV2 paper's section 6.3 cuts it.

- Reads what the backbone names for it: MobileNetV2 the 320 channels of `layer_18`, as the 1280 of
  `layer_19` cost more than they give (that section); another backbone its last feature.
- ASPP is image pooling and a 1x1 convolution only; `full` adds the three atrous convolutions of
  DeepLabv3, `separable` the same made depthwise separable, as TensorFlow's released code has them.
- `decoder` makes it DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611): logits at stride 4.
- Activations are plain ReLU, not the backbone's ReLU6.

Source: TensorFlow research `deeplab/model.py`, `deeplab/core/feature_extractor.py`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.features import FeatureSpec, Taps
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d, grid_centres
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

Branches = Literal["pool", "full", "separable"]

_LOW_LEVEL_CHANNELS = 48
_RATES_AT_16 = (6, 12, 18)


def sources(taps: Taps, decoder: bool = False, auxiliary: bool = False) -> tuple[str, ...]:
    """Features that a head of these settings reads: what its backbone must be built with."""
    low_level, extra = (taps.stride_4,) * decoder, (taps.auxiliary,) * auxiliary
    return (taps.segmentation, *low_level, *extra)


def atrous_rates(stride: int) -> tuple[int, ...]:
    """Dilations of the three atrous convolutions, which keep their reach in input pixels.

    Args:
        stride: Of the feature that they read: 8, 16 or 32.

    Source: DeepLabv3 section 3.3, for 16 and 8; at 32 they are halved likewise.
    """
    return tuple(rate * 16 // stride for rate in _RATES_AT_16)


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of image-wide averages, of which each image has just one per channel.

    A batch of one image has no statistics: its mean is the value and its variance zero, so that
    normalising by them would replace every image by the same bias (and PyTorch refuses to). Such
    a batch is normalised by the running statistics, as in evaluation, and leaves them alone.
    """

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Normalised values."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: parallel branches over one feature, joined by a 1x1.

    Args:
        in_channels: Of the feature.
        channels: Of every branch and of the output.
        rates: Dilations of the atrous branches; none for the mobile head.
        separable: Makes the atrous branches depthwise separable.
        conv: Makes the convolutions: `ConvBNAct` with the head's padding, norm and activation.
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
                return _separable(conv, in_channels, channels, dilation=rate)
            return conv(in_channels, channels, 3, dilation=rate)

        self.pool = conv(in_channels, channels, norm=PooledBatchNorm2d)
        self.pointwise = conv(in_channels, channels)
        self.atrous = nn.ModuleList(atrous(rate) for rate in rates)
        self.project = conv((2 + len(rates)) * channels, channels)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """The joined branches, in TensorFlow's order: pool, 1x1, atrous."""
        # The mean over the whole grid: TensorFlow's crop-sized window, of any size here.
        pooled = self.pool(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [pooled, self.pointwise(x), *(branch(x) for branch in self.atrous)]
        return self.project(torch.cat(branches, dim=1))


class Decoder(nn.Module):
    """DeepLabv3+'s decoder: refines the head's output with a feature of a finer grid.

    Args:
        low_level_channels: Of the finer feature.
        channels: Of the head's output and of the decoder's.
        conv: As in `ASPP`.

    Source: DeepLabv3+ section 3.1; differs: the low-level feature is the output of the backbone's
    last block of stride 4, of which TensorFlow reads the depthwise convolution (of MobileNetV2 six
    times the channels).
    """

    def __init__(
        self, low_level_channels: int, channels: int, *, conv: Callable[..., ConvBNAct]
    ) -> None:
        super().__init__()
        self.reduce = conv(low_level_channels, _LOW_LEVEL_CHANNELS)
        self.refine = nn.Sequential(
            _separable(conv, channels + _LOW_LEVEL_CHANNELS, channels),
            _separable(conv, channels, channels),
        )

    def forward(
        self, resampled: Float[Tensor, "B C h w"], low_level: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, "B C h w"]:
        """Refined features.

        Args:
            resampled: The head's output, on the grid of the low-level feature.
            low_level: The finer feature.
        """
        reduced = self.reduce(low_level)
        # The resampling answers in float32 whatever the convolutions compute in.
        return self.refine(torch.cat([resampled.to(reduced.dtype), reduced], dim=1))


class DeepLabV3(nn.Module):
    """The segmentation head: logits of every label on the grid of a feature.

    The grid is that of the last feature, or with the decoder that of stride 4; outputs say where
    its cells lie.

    Args:
        feature_specs: What the backbone declares.
        num_labels: Background included.
        taps: Names of the features read: the backbone's.
        aspp: Branches beside the 1x1: image pooling alone ("pool", the paper's mobile head), or
            also atrous convolutions, "full" or "separable".
        decoder: Refines the output at stride 4 (DeepLabv3+).
        auxiliary: Adds a second classifier on `taps.auxiliary` (a 3x3 convolution to a quarter of
            the channels, then 1x1, as torchvision's `FCNHead`), whose logits help training.
        channels: Of the branches and of everything behind them.
        dropout: Behind ASPP, and in front of the auxiliary classifier.
        padding: The backbone's border rule, which also says where the cells lie.
        norm_eps: Of batch norm: 1e-5 here in TensorFlow too, unlike in its backbone.
        norm_momentum: Of batch norm.
    """

    def __init__(
        self,
        feature_specs: Mapping[str, FeatureSpec],
        num_labels: int,
        *,
        taps: Taps,
        aspp: Branches = "pool",
        decoder: bool = False,
        auxiliary: bool = False,
        channels: int = 256,
        dropout: float = 0.1,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        conv = partial(
            ConvBNAct,
            padding=padding,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            activation=nn.ReLU,
        )
        self.padding: Padding = padding
        self.taps = taps
        names = sources(taps, decoder, auxiliary)
        self.strides = {name: feature_specs[name].stride for name in names}
        spec = feature_specs[taps.segmentation]
        self.aspp = ASPP(
            spec.channels,
            channels,
            rates=() if aspp == "pool" else atrous_rates(spec.stride),
            separable=aspp == "separable",
            conv=conv,
        )
        self.dropout = nn.Dropout(dropout)
        self.decoder = (
            Decoder(feature_specs[taps.stride_4].channels, channels, conv=conv) if decoder else None
        )
        self.classifier = conv2d(channels, num_labels, bias=True)
        self.auxiliary = (
            _fcn(feature_specs[taps.auxiliary].channels, num_labels, dropout, conv)
            if auxiliary
            else None
        )
        initialise(self)

    def forward(
        self, features: Mapping[str, Tensor], image_size: tuple[int, int]
    ) -> SegmentationOutputs:
        """Raw outputs.

        Args:
            features: By name, `sources` among them.
            image_size: (H, W) of the network input.
        """
        taps = self.taps
        x = self.dropout(self.aspp(features[taps.segmentation]))
        grids = {
            name: grid_centres(image_size, stride, self.padding, x.device)
            for name, stride in self.strides.items()
        }
        grid = taps.segmentation
        if self.decoder is not None:
            grid = taps.stride_4
            x = self.decoder(resample(x, grids[taps.segmentation], grids[grid]), features[grid])
        auxiliary = None
        if self.auxiliary is not None:
            auxiliary = self.auxiliary(features[taps.auxiliary])
            if self.strides[taps.auxiliary] != self.strides[grid]:
                auxiliary = resample(auxiliary, grids[taps.auxiliary], grids[grid])
        return SegmentationOutputs(self.classifier(x), *grids[grid], auxiliary)

    def class_layers(self) -> list[nn.Module]:
        """Layers whose outputs are logits."""
        return [self.classifier, *([self.auxiliary[-1]] if self.auxiliary is not None else [])]


def _separable(
    conv: Callable[..., ConvBNAct], in_channels: int, out_channels: int, dilation: int = 1
) -> nn.Sequential:
    """Depthwise 3x3 and 1x1, each with batch norm and ReLU."""
    return nn.Sequential(
        conv(in_channels, in_channels, 3, dilation=dilation, groups=in_channels),
        conv(in_channels, out_channels),
    )


def _fcn(
    in_channels: int, num_labels: int, dropout: float, conv: Callable[..., ConvBNAct]
) -> nn.Sequential:
    return nn.Sequential(
        conv(in_channels, in_channels // 4, 3),
        nn.Dropout(dropout),
        conv2d(in_channels // 4, num_labels, bias=True),
    )


def initialise(head: nn.Module) -> None:
    """How the training of a segmentation head begins.

    | layer | start |
    |---|---|
    | convolutions in front of batch norm (no bias) | Kaiming normal, fan in (TensorFlow: Xavier) |
    | batch norm | weight 1, bias 0 |
    | classifiers (bias) | truncated normal 0.01, bias 0: all labels as likely, as TensorFlow |
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            if module.bias is None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)
                nn.init.zeros_(module.bias)
