"""LR-ASPP (Howard et al. 2019, arXiv:1905.02244, section 6.4): MobileNetV3's segmentation head.

The channels of the last feature are weighted by a gate computed from the whole image, then
classified. The last feature of stride 8 is also classified, and the two results are added on its
grid (for MobileNetV2 these features are `layer_18` and `layer_7`). The head costs a fifth of
DeepLabv3's mobile head: 0.05 against 0.24 billion multiply-adds at 513 pixels and output stride 16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.grid import grid_centres
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d
from mbv2det.heads.deeplab_v3 import initialise
from mbv2det.labels import LabelMap
from mbv2det.model_config import carried
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.method import SegmentationHeadConfig
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

_CHANNELS = 128


def input_features(head_features: HeadFeatures) -> tuple[Feature, Feature]:
    """Returns the features that the head reads; its backbone must return them."""
    return head_features.dense, head_features.stride_8


class LRASPP(nn.Module):
    """The LR-ASPP segmentation head: logits of every label on the grid of stride 8.

    Args:
        feature_specs: Channels and strides of the backbone's features.
        num_labels: Number of labels, background included.
        head_features: The backbone's features for each kind of head.
        channels: Channels of the branch on the last feature.
        padding: Padding rule of the backbone, which determines where the cells lie.
        norm_eps: Epsilon of the batch norm.
        norm_momentum: Momentum of the batch norm, in PyTorch's sense.

    Attributes:
        input_features: The features that the head reads: the last one and that of stride 8.

    Source: paper figure 10, and torchvision's `LRASPPHead`; differs from the paper: the gate pools
        the whole grid, where the paper pools 49x49 windows, 16 and 20 cells apart, of a 1024x2048
        image.
    """

    def __init__(
        self,
        feature_specs: Mapping[Feature, FeatureSpec],
        num_labels: int,
        *,
        head_features: HeadFeatures,
        channels: int = _CHANNELS,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.input_features = input_features(head_features)
        high, low = (feature_specs[feature] for feature in self.input_features)
        self.padding: Padding = padding
        self.strides = (high.stride, low.stride)
        self.project = ConvBNAct(
            high.channels,
            channels,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            activation=nn.ReLU,
        )
        self.gate = conv2d(high.channels, channels)
        self.high_classifier = conv2d(channels, num_labels, bias=True)
        self.low_classifier = conv2d(low.channels, num_labels, bias=True)
        initialise(self)

    def forward(
        self, features: Mapping[Feature, Tensor], image_size: tuple[int, int]
    ) -> SegmentationOutputs:
        """Returns the raw outputs, on the grid of the feature of stride 8.

        Args:
            features: Feature maps of the backbone, `input_features` among them.
            image_size: (height, width) of the network input in pixels.
        """
        high, low = (features[feature] for feature in self.input_features)
        coarse, fine = (
            grid_centres(image_size, stride, self.padding, high.device) for stride in self.strides
        )
        gate = self.gate(high.mean(dim=(2, 3), keepdim=True)).sigmoid()
        # Classifying before resampling gives the same result with fewer channels to resample: a
        # 1x1 convolution commutes with weights that add up to one.
        logits = self.high_classifier(self.project(high) * gate)
        logits = resample(logits, coarse, fine) + self.low_classifier(low)
        return SegmentationOutputs(logits, *fine)

    def class_layers(self) -> list[nn.Module]:
        """Returns the layers whose outputs are logits of the labels."""
        return [self.high_classifier, self.low_classifier]


@dataclass(frozen=True, kw_only=True)
class LRASPPConfig(SegmentationHeadConfig):
    """Settings of LR-ASPP and its loss.

    Attributes:
        name: lraspp.
        channels: Channels of the head's convolutions; 128 by default.
    """

    name: Literal["lraspp"] = carried("lraspp")
    channels: int | None = carried(None)

    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the last feature and the last feature of stride 8."""
        return input_features(available)

    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> LRASPP:
        """Builds the network of the head, with initial weights."""
        return LRASPP(
            backbone.feature_specs,
            len(label_map),
            head_features=backbone.head_features,
            channels=self.channels or _CHANNELS,
            padding=backbone.padding,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
        )

    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> SegmentationLoss:
        """Builds the loss that trains the head."""
        return SegmentationLoss(lovasz_weight=self.lovasz_weight, class_weights=class_weights)
