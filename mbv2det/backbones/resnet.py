"""ResNet-50 and ResNet-101 (He et al. 2016, arXiv:1512.03385): torchvision's, as a `Backbone`.

Table 7 of the MobileNetV2 paper compares MobileNetV2 with ResNet-101.

- The layers are `stem` (torchvision's conv1, bn1, relu and maxpool) and `layer1` to `layer4`; the
  output of every layer is a feature. Tensors keep torchvision's names, prefixed by `layers.stem.`
  or `layers.`.
- In torchvision's variant ("v1.5") the 3x3 convolutions have the strides. These convolutions, the
  7x7 convolution and the max pooling are all centred on every second cell, from the first one on:
  padding is symmetric, and `subsample` selects the cells of the strided network from a dilated one.
- This is the only backbone that needs torchvision, so the package does not import it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet50, resnet101

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.dilation import Dilation
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures

_STEM = ("conv1", "bn1", "relu", "maxpool")
_STEM_SPEC = FeatureSpec(64, 4)
# Channels and nominal stride of each stage.
_STAGES = {"layer1": (256, 1), "layer2": (512, 2), "layer3": (1024, 2), "layer4": (2048, 2)}
_LAST_FEATURE = Feature("layer4")


class ResNet(Backbone):
    """A ResNet with an optional ImageNet-style classifier; the subclasses set the depth.

    Args:
        output_stride: Input pixels per cell of the last feature: 32, or 16 or 8 by dilation.
        num_classes: Number of classes of a classifier (average pool, dropout, linear); None for no
            classifier.
        out_features: Features that `forward` returns, at their own or a coarser stride.
        norm_eps: Epsilon of the batch norms: 1e-5 in torchvision's weights.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.
        dropout: Dropout probability before the classifier; torchvision has no dropout.

    Raises:
        ValueError: For an unknown output stride, an unknown feature, or a feature at a stride that
            it cannot have.

    Attributes:
        network: Builder of torchvision's network.

    Source: torchvision `models/resnet.py`; differs: the last batch norm of every block starts at
        zero (torchvision's `zero_init_residual`), as in `MobileNetV2`.
    """

    head_features = HeadFeatures(
        stride_4=Feature("layer1"),
        stride_8=Feature("layer2"),
        stride_16=Feature("layer3", stride=16),
        stride_32=Feature("layer4", stride=32),
        auxiliary=Feature("layer3"),
        dense=_LAST_FEATURE,
        last=_LAST_FEATURE,
    )
    network: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        output_stride: int = 32,
        num_classes: int | None = None,
        *,
        out_features: Sequence[Feature] = (_LAST_FEATURE,),
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        dilation = Dilation(output_stride, stride=_STEM_SPEC.stride)
        specs = {Feature("stem"): _STEM_SPEC}
        dilated = []
        for name, (channels, nominal_stride) in _STAGES.items():
            stride, _ = dilation.step(nominal_stride)
            dilated.append(stride < nominal_stride)
            specs[Feature(name)] = FeatureSpec(channels, dilation.stride)
        network = self.network(
            norm_layer=partial(nn.BatchNorm2d, eps=norm_eps, momentum=norm_momentum),
            replace_stride_with_dilation=dilated[1:],  # layer1 has no stride to replace
            zero_init_residual=True,
        )
        stem = OrderedDict((name, getattr(network, name)) for name in _STEM)
        layers = {"stem": nn.Sequential(stem), **{name: getattr(network, name) for name in _STAGES}}
        super().__init__(
            layers,
            specs,
            out_features=out_features,
            num_classes=num_classes,
            dropout=dropout,
            padding="symmetric",
        )

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


class ResNet50(ResNet):
    """ResNet with 3, 4, 6 and 3 blocks in its stages."""

    network = staticmethod(resnet50)


class ResNet101(ResNet):
    """ResNet with 3, 4, 23 and 3 blocks in its stages."""

    network = staticmethod(resnet101)
