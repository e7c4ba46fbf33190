"""LR-ASPP (Howard et al. 2019, arXiv:1905.02244, section 6.4): MobileNetV3's segmentation head.

The last feature, each channel weighted by a gate that has seen the whole image, is classified; so
is the last of stride 8; the two are added there (`layer_18` and `layer_7` of MobileNetV2). A fifth
of the cost of DeepLabv3's mobile head: 0.05 against 0.24 billion multiply-adds at 513 pixels and
output stride 16.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from mbv2det.backbones.features import FeatureSpec, Taps
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d, grid_centres
from mbv2det.heads.deeplab_v3 import initialise
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample


def sources(taps: Taps) -> tuple[str, str]:
    """Features that the head reads: what its backbone must be built with."""
    return taps.segmentation, taps.stride_8


class LRASPP(nn.Module):
    """The segmentation head: logits of every label on the grid of stride 8.

    Args:
        feature_specs: What the backbone declares.
        num_labels: Background included.
        taps: Names of the features read: the backbone's.
        channels: Of the branch on the last feature.
        padding: The backbone's border rule, which says where the cells lie.
        norm_eps: Of batch norm.
        norm_momentum: Of batch norm.

    Source: paper figure 10, and torchvision's `LRASPPHead`; differs from the paper: the gate pools
    the whole grid, where it takes 49x49 windows, 16 and 20 cells apart, of a 1024x2048 image.
    """

    def __init__(
        self,
        feature_specs: Mapping[str, FeatureSpec],
        num_labels: int,
        *,
        taps: Taps,
        channels: int = 128,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.sources = sources(taps)
        high, low = (feature_specs[name] for name in self.sources)
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
        self, features: Mapping[str, Tensor], image_size: tuple[int, int]
    ) -> SegmentationOutputs:
        """Raw outputs.

        Args:
            features: By name, `sources` among them.
            image_size: (H, W) of the network input.
        """
        high, low = (features[name] for name in self.sources)
        coarse, fine = (
            grid_centres(image_size, stride, self.padding, high.device) for stride in self.strides
        )
        gate = self.gate(high.mean(dim=(2, 3), keepdim=True)).sigmoid()
        # Classified before the resampling, which is equal and has fewer channels to resample: a
        # 1x1 convolution commutes with weights that add up to one.
        logits = self.high_classifier(self.project(high) * gate)
        logits = resample(logits, coarse, fine) + self.low_classifier(low)
        return SegmentationOutputs(logits, *fine)

    def class_layers(self) -> list[nn.Module]:
        """Layers whose outputs are logits."""
        return [self.high_classifier, self.low_classifier]
