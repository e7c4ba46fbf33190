"""DeepLabv3 (Chen et al. 2017, arXiv:1706.05587), reduced as in MobileNetV2 paper section 6.3.

- It reads the segmentation feature of the backbone: for MobileNetV2 the 320 channels of
  `layer_18`, since the 1280 of `layer_19` cost more than they gain (section 6.3); for another
  backbone its last feature.
- ASPP consists of image pooling and a 1x1 convolution only. `full` adds the three atrous
  convolutions of DeepLabv3; `separable` adds them as depthwise separable convolutions, as in
  TensorFlow's released code.
- `decoder` makes it DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611), with logits at stride 4.
- Activations are plain ReLU, not the ReLU6 of the backbone.

Source: TensorFlow research `deeplab/model.py`, `deeplab/core/feature_extractor.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.grid import grid_centres
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d
from mbv2det.heads.aspp import ASPP, atrous_rates, depthwise_separable
from mbv2det.labels import LabelMap
from mbv2det.model_config import carried, expect
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.method import SegmentationHeadConfig
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

Branches = Literal["pool", "full", "separable"]

_CHANNELS = 256
_LOW_LEVEL_CHANNELS = 48


def input_features(
    head_features: HeadFeatures, decoder: bool = False, auxiliary: bool = False
) -> tuple[Feature, ...]:
    """Returns the features that the head reads; its backbone must return them.

    Args:
        head_features: The backbone's features for each kind of head.
        decoder: Whether the head has a decoder.
        auxiliary: Whether the head has an auxiliary classifier.
    """
    features = [head_features.dense]
    if decoder:
        features.append(head_features.stride_4)
    if auxiliary:
        features.append(head_features.auxiliary)
    return tuple(features)


class Decoder(nn.Module):
    """DeepLabv3+'s decoder: refines the output of ASPP with a feature of a finer grid.

    Args:
        low_level_channels: Channels of the finer feature.
        channels: Channels of the ASPP output and of the decoder output.
        conv: Builder of the convolutions: `ConvBNAct` with the head's padding, norm and activation.

    Source: DeepLabv3+ section 3.1; differs: the low-level feature is the output of the backbone's
        last block of stride 4, where TensorFlow reads the depthwise convolution inside that block
        (for MobileNetV2 six times as many channels).
    """

    def __init__(
        self, low_level_channels: int, channels: int, *, conv: Callable[..., ConvBNAct]
    ) -> None:
        super().__init__()
        self.reduce = conv(low_level_channels, _LOW_LEVEL_CHANNELS)
        self.refine = nn.Sequential(
            depthwise_separable(conv, channels + _LOW_LEVEL_CHANNELS, channels),
            depthwise_separable(conv, channels, channels),
        )

    def forward(
        self, resampled: Float[Tensor, "B C h w"], low_level: Float[Tensor, "B D h w"]
    ) -> Float[Tensor, "B C h w"]:
        """Returns the refined feature map, on the grid of the low-level feature.

        Args:
            resampled: Output of ASPP, resampled to the grid of the low-level feature.
            low_level: The finer feature.
        """
        reduced = self.reduce(low_level)
        # Resampling always returns float32.
        return self.refine(torch.cat([resampled.to(reduced.dtype), reduced], dim=1))


class DeepLabV3(nn.Module):
    """The DeepLabv3 segmentation head: logits of every label on the grid of a feature.

    This is the grid of the segmentation feature or, with the decoder, that of stride 4. The
    outputs contain the positions of its cells.

    Args:
        feature_specs: Channels and strides of the backbone's features.
        num_labels: Number of labels, background included.
        head_features: The backbone's features for each kind of head.
        aspp: Branches beside the 1x1 convolution: image pooling alone ("pool", the paper's mobile
            head), or image pooling and atrous convolutions, "full" or "separable".
        decoder: Whether to refine the output at stride 4 (DeepLabv3+).
        auxiliary: Whether to add a second classifier on `head_features.auxiliary` for an additional
            loss: a 3x3 convolution to a quarter of the channels, then 1x1, as torchvision's
            `FCNHead`.
        channels: Channels of the ASPP branches and of all later layers.
        dropout: Dropout probability after ASPP and before the auxiliary classifier.
        padding: Padding rule of the backbone, which also determines where the cells lie.
        norm_eps: Epsilon of the batch norms: 1e-5 in TensorFlow's head too, unlike in its
            backbone.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.

    Attributes:
        strides: Input pixels per cell of each feature that the head reads.
    """

    def __init__(
        self,
        feature_specs: Mapping[Feature, FeatureSpec],
        num_labels: int,
        *,
        head_features: HeadFeatures,
        aspp: Branches = "pool",
        decoder: bool = False,
        auxiliary: bool = False,
        channels: int = _CHANNELS,
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
        self.head_features = head_features
        specs = {f: feature_specs[f] for f in input_features(head_features, decoder, auxiliary)}
        self.strides = {feature: spec.stride for feature, spec in specs.items()}
        spec = specs[head_features.dense]
        rates = () if aspp == "pool" else atrous_rates(spec.stride)
        separable = aspp == "separable"
        self.aspp = ASPP(spec.channels, channels, rates=rates, separable=separable, conv=conv)
        self.dropout = nn.Dropout(dropout)
        self.decoder = None
        if decoder:
            self.decoder = Decoder(specs[head_features.stride_4].channels, channels, conv=conv)
        self.classifier = conv2d(channels, num_labels, bias=True)
        self.auxiliary = None
        if auxiliary:
            in_channels = specs[head_features.auxiliary].channels
            self.auxiliary = _auxiliary_classifier(in_channels, num_labels, dropout, conv)
        initialise(self)

    def forward(
        self, features: Mapping[Feature, Tensor], image_size: tuple[int, int]
    ) -> SegmentationOutputs:
        """Returns the raw outputs.

        Args:
            features: Feature maps of the backbone, those of `strides` among them.
            image_size: (height, width) of the network input in pixels.
        """
        high, low = self.head_features.dense, self.head_features.stride_4
        x = self.dropout(self.aspp(features[high]))
        grids = {
            feature: grid_centres(image_size, stride, self.padding, x.device)
            for feature, stride in self.strides.items()
        }
        output = high  # feature on the grid of the logits
        if self.decoder is not None:
            output = low
            x = self.decoder(resample(x, grids[high], grids[low]), features[low])
        auxiliary = None
        if self.auxiliary is not None:
            source = self.head_features.auxiliary
            auxiliary = self.auxiliary(features[source])
            if self.strides[source] != self.strides[output]:
                auxiliary = resample(auxiliary, grids[source], grids[output])
        return SegmentationOutputs(self.classifier(x), *grids[output], auxiliary)

    def class_layers(self) -> list[nn.Module]:
        """Returns the layers whose outputs are logits of the labels."""
        return [self.classifier, *([self.auxiliary[-1]] if self.auxiliary is not None else [])]


def _auxiliary_classifier(
    in_channels: int, num_labels: int, dropout: float, conv: Callable[..., ConvBNAct]
) -> nn.Sequential:
    """Returns the layers of torchvision's `FCNHead`."""
    return nn.Sequential(
        conv(in_channels, in_channels // 4, 3),
        nn.Dropout(dropout),
        conv2d(in_channels // 4, num_labels, bias=True),
    )


def initialise(head: nn.Module) -> None:
    """Sets the weights with which a segmentation head starts training.

    | layer | initial values |
    |---|---|
    | convolutions before batch norm (no bias) | Kaiming normal, fan in (TensorFlow: Xavier) |
    | batch norm | weight 1, bias 0 |
    | classifiers (bias) | truncated normal 0.01, bias 0: all labels equally likely, as TensorFlow |
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            if module.bias is None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)
                nn.init.zeros_(module.bias)


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Config(SegmentationHeadConfig):
    """Settings of DeepLabv3 and its loss.

    Attributes:
        name: deeplabv3.
        aspp: Branches: pool is image pooling and a 1x1 convolution, the mobile head of the
            MobileNetV2 paper; full adds three atrous 3x3 convolutions; separable makes those
            depthwise separable. Atrous rates follow from backbone.output_stride.
        decoder: Whether to refine the output at stride 4, as in DeepLabv3+.
        channels: Channels of the head's convolutions; 256 by default.
        dropout: Dropout probability before the logits.
        auxiliary_weight: Weight of the loss of an auxiliary head on an earlier feature; 0 for no
            such head.
    """

    name: Literal["deeplabv3"] = carried("deeplabv3")
    aspp: Branches = carried("pool")
    decoder: bool = carried(False)
    channels: int | None = carried(None)
    dropout: float = 0.1
    auxiliary_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        valid = 0 <= self.dropout < 1
        expect("heads.segmentation.dropout", self.dropout, valid, "from 0 to below 1")
        weight = self.auxiliary_weight
        expect("heads.segmentation.auxiliary_weight", weight, weight >= 0, "at least 0")

    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the last feature, and those of the decoder and the auxiliary head."""
        return input_features(available, self.decoder, self.auxiliary_weight > 0)

    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> DeepLabV3:
        """Builds the network of the head, with initial weights."""
        return DeepLabV3(
            backbone.feature_specs,
            len(label_map),
            head_features=backbone.head_features,
            aspp=self.aspp,
            decoder=self.decoder,
            auxiliary=self.auxiliary_weight > 0,
            channels=self.channels or _CHANNELS,
            dropout=self.dropout,
            padding=backbone.padding,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
        )

    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> SegmentationLoss:
        """Builds the loss that trains the head."""
        return SegmentationLoss(self.auxiliary_weight, self.lovasz_weight, class_weights)
