"""DeepLabv3 with separable ASPP and a light decoder at stride 4.

- ASPP has image pooling and depthwise separable atrous convolutions, as in TensorFlow's released
  code. Its logits are those of DeepLabv3, on the grid of the backbone's last feature.
- The decoder follows DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611): it joins the output of ASPP
  with the feature of stride 4. It has 32 and 24 channels instead of 256 and 48, one depthwise
  separable convolution instead of two, and its logits are added to those of ASPP. So it learns
  corrections, as small and thin objects need them, while labels are learned as fast as without it.
- Activations are plain ReLU, as in `DeepLabV3`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.grid import grid_centres
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d
from mbv2det.heads.aspp import ASPP, atrous_rates, depthwise_separable
from mbv2det.heads.deeplab_v3 import initialise
from mbv2det.labels import LabelMap
from mbv2det.model_config import carried, expect
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.method import SegmentationHeadConfig
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

_CHANNELS = 256
_DECODER_CHANNELS = 32
_LOW_LEVEL_CHANNELS = 24


def input_features(head_features: HeadFeatures) -> tuple[Feature, Feature]:
    """Returns the features that the head reads; its backbone must return them."""
    return head_features.dense, head_features.stride_4


class DeepLabV3Light(nn.Module):
    """DeepLabv3 with a light decoder: logits of every label on the grid of stride 4.

    Args:
        feature_specs: Channels and strides of the backbone's features.
        num_labels: Number of labels, background included.
        head_features: The backbone's features for each kind of head.
        channels: Channels of ASPP.
        dropout: Dropout probability after ASPP.
        padding: Padding rule of the backbone, which also determines where the cells lie.
        norm_eps: Epsilon of the batch norms.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.

    Attributes:
        input_features: The features that the head reads: the last one and that of stride 4.

    Source: DeepLabv3+ section 3.1; differs: fewer channels, one convolution after joining, and
        logits that are added to those of ASPP.
    """

    def __init__(
        self,
        feature_specs: Mapping[Feature, FeatureSpec],
        num_labels: int,
        *,
        head_features: HeadFeatures,
        channels: int = _CHANNELS,
        dropout: float = 0.1,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.03,
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
        self.input_features = input_features(head_features)
        high, low = (feature_specs[feature] for feature in self.input_features)
        self.strides = (high.stride, low.stride)
        rates = atrous_rates(high.stride)
        self.aspp = ASPP(high.channels, channels, rates=rates, separable=True, conv=conv)
        self.dropout = nn.Dropout(dropout)
        self.coarse_classifier = conv2d(channels, num_labels, bias=True)
        self.squeeze = conv(channels, _DECODER_CHANNELS)
        self.reduce = conv(low.channels, _LOW_LEVEL_CHANNELS)
        joined = _DECODER_CHANNELS + _LOW_LEVEL_CHANNELS
        self.refine = depthwise_separable(conv, joined, _DECODER_CHANNELS)
        self.fine_classifier = conv2d(_DECODER_CHANNELS, num_labels, bias=True)
        initialise(self)

    def forward(
        self, features: Mapping[Feature, Tensor], image_size: tuple[int, int]
    ) -> SegmentationOutputs:
        """Returns the raw outputs, on the grid of the feature of stride 4.

        Args:
            features: Feature maps of the backbone, `input_features` among them.
            image_size: (height, width) of the network input in pixels.
        """
        high, low = (features[feature] for feature in self.input_features)
        coarse, fine = (
            grid_centres(image_size, stride, self.padding, high.device) for stride in self.strides
        )
        x = self.dropout(self.aspp(high))
        reduced = self.reduce(low)
        # Resampling always returns float32.
        squeezed = resample(self.squeeze(x), coarse, fine).to(reduced.dtype)
        corrections = self.fine_classifier(self.refine(torch.cat([squeezed, reduced], dim=1)))
        logits = resample(self.coarse_classifier(x), coarse, fine) + corrections
        return SegmentationOutputs(logits, *fine)

    def class_layers(self) -> list[nn.Module]:
        """Returns the layers whose outputs are logits of the labels."""
        return [self.coarse_classifier, self.fine_classifier]


@dataclass(frozen=True, kw_only=True)
class DeepLabV3LightConfig(SegmentationHeadConfig):
    """Settings of DeepLabv3 with a light decoder, and its loss.

    Attributes:
        name: deeplabv3_light.
        channels: Channels of ASPP; 256 by default.
        dropout: Dropout probability after ASPP.
    """

    name: Literal["deeplabv3_light"] = carried("deeplabv3_light")
    channels: int | None = carried(None)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        valid = 0 <= self.dropout < 1
        expect("heads.segmentation.dropout", self.dropout, valid, "from 0 to below 1")

    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the last feature and the last feature of stride 4."""
        return input_features(available)

    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> DeepLabV3Light:
        """Builds the network of the head, with initial weights."""
        return DeepLabV3Light(
            backbone.feature_specs,
            len(label_map),
            head_features=backbone.head_features,
            channels=self.channels or _CHANNELS,
            dropout=self.dropout,
            padding=backbone.padding,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
        )

    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> SegmentationLoss:
        """Builds the loss that trains the head."""
        return SegmentationLoss(lovasz_weight=self.lovasz_weight, class_weights=class_weights)
