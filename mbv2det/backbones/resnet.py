"""ResNet-50 and ResNet-101 (He et al. 2016, arXiv:1512.03385): torchvision's, with our features.

The large network that the MobileNetV2 paper's table 7 sets beside the small ones.

- Layers are `stem` (torchvision's conv1, bn1, relu and maxpool) and its `layer1` to `layer4`; every
  layer's output is a feature. Tensors keep its names, behind `layers.stem.` and `layers.`.
- torchvision's variant ("v1.5") strides in the 3x3 convolutions. They, the 7x7 convolution and the
  max pooling are all centred on every second cell from the first: borders are symmetric, and
  `subsample` finds the strided network's cells in a dilated one.
- The only backbone that needs torchvision, so the package does not import it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import nn
from torchvision.models import resnet50, resnet101

from mbv2det.backbones.features import Backbone, Dilation, FeatureSpec, Taps

_STEM = ("conv1", "bn1", "relu", "maxpool")
_STEM_SPEC = FeatureSpec(64, 4)
# Channels and nominal stride.
_STAGES = {"layer1": (256, 1), "layer2": (512, 2), "layer3": (1024, 2), "layer4": (2048, 2)}
_LAST_LAYER = "layer4"


class ResNet(Backbone):
    """The backbone, with an optional ImageNet-style classifier; its subclasses say how deep.

    Args:
        output_stride: Input pixels per cell of the last feature: 32, or 16 or 8 by dilation.
        num_classes: Builds a classifier (average pool, dropout, linear); None builds none.
        out_features: Names that `forward` returns, each with `@` and a stride appended where a
            coarser grid is wanted than the feature has.
        norm_eps: Of batch norm: 1e-5 in torchvision's weights.
        norm_momentum: Of batch norm, in PyTorch's sense.
        dropout: In front of the classifier; torchvision's has none.

    Raises:
        ValueError: For an output stride or a feature that does not exist, or a feature at a stride
            that it cannot be brought to.

    Source: torchvision `models/resnet.py`; differs: the last batch norm of every block starts at
        zero (its `zero_init_residual`), as in `MobileNetV2`.
    """

    taps = Taps(
        detection=("layer3@16", "layer4@32"),
        segmentation=_LAST_LAYER,
        auxiliary="layer3",
        stride_8="layer2",
        stride_4="layer1",
        classification=_LAST_LAYER,
    )
    network: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        output_stride: int = 32,
        num_classes: int | None = None,
        *,
        out_features: Sequence[str] = (_LAST_LAYER,),
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        dilation = Dilation(output_stride, stride=_STEM_SPEC.stride)
        specs = {"stem": _STEM_SPEC}
        dilated = []
        for name, (channels, nominal_stride) in _STAGES.items():
            stride, _ = dilation.step(nominal_stride)
            dilated.append(stride < nominal_stride)
            specs[name] = FeatureSpec(channels, dilation.stride)
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


class ResNet50(ResNet):
    """Of 3, 4, 6 and 3 blocks."""

    network = staticmethod(resnet50)


class ResNet101(ResNet):
    """Of 3, 4, 23 and 3 blocks."""

    network = staticmethod(resnet101)
