"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): linear bottlenecks, inverted residuals.

- The layers have TensorFlow's names, `layer_1` (the stem) to `layer_19` (the last 1x1 convolution);
  torchvision's `features[k]` is `layer_{k + 1}`.
- The output of every layer is a feature. So is the expansion inside every block, e.g.
  `Feature("layer_15", part="expansion")`, which SSDLite reads at stride 16. `layer_2` does not
  expand: there it is the input of the block.
- An output stride below 32 replaces the later strides by dilation, as DeepLab's code does. A
  feature with a stride, e.g. `Feature("layer_19", stride=32)`, is on the grid that it would have
  without this dilation (see `Backbone`).
- The files of this folder, apart from `resnet.py`, import torch and jaxtyping only, so that they
  can be copied into other projects.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.dilation import Dilation
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.layers import ConvBNAct, Padding, ReLU6, make_divisible

Bottleneck = Literal["linear", "relu6"]
Shortcut = Literal["bottleneck", "expansion", "none"]

# Table 2 of the paper: expand_ratio t, channels c, repeats n, stride s of the first repeat.
_INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM_CHANNELS = 32
LAST_CHANNELS = 1280
_LAST_LAYER = "layer_19"
_EXPANSION = "expansion"


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation (paper section 3.3, figure 4b).

    The input is added to the output where both have the same shape. With expand_ratio 1 there is no
    expansion.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        expand_ratio: Channels of the expansion per input channel.
        stride: Stride of the depthwise convolution.
        dilation: Dilation of the depthwise convolution.
        conv: Builder of the convolutions: `ConvBNAct` with the network's padding and norm settings.
        bottleneck: Activation of the output: `linear` for none; `relu6` is less accurate according
            to section 6.4 of the paper.
        shortcut: Layers that the shortcut connects: `bottleneck`, the narrow input and output of
            the block (the paper's); `expansion`, the wide input and output of the depthwise
            convolution; `none`, no layers. The last two are less accurate according to section 6.4
            of the paper.

    Attributes:
        expanded_channels: Number of channels of the expansion.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expand_ratio: int,
        stride: int,
        dilation: int,
        conv: Callable[..., ConvBNAct],
        bottleneck: Bottleneck = "linear",
        shortcut: Shortcut = "bottleneck",
    ) -> None:
        super().__init__()
        expanded = make_divisible(in_channels * expand_ratio) if expand_ratio > 1 else in_channels
        self.expanded_channels = expanded
        self.expand = conv(in_channels, expanded) if expanded > in_channels else nn.Identity()
        self.depthwise = conv(
            expanded, expanded, 3, stride=stride, dilation=dilation, groups=expanded
        )
        self.bottleneck: Bottleneck = bottleneck
        activation = ReLU6 if bottleneck == "relu6" else None
        self.project = conv(expanded, out_channels, activation=activation)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut: Shortcut = shortcut if same_shape else "none"

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D i j"]:
        """Returns the output of the block."""
        return self.contract(self.expand(x), x)

    def contract(
        self, expanded: Float[Tensor, "B E h w"], x: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B D i j"]:
        """Runs the second half of the block: depthwise convolution, projection, shortcut.

        Args:
            expanded: Output of `expand`.
            x: Input of the block.
        """
        filtered = self.depthwise(expanded)
        if self.shortcut == "expansion":
            filtered = expanded + filtered
        y = self.project(filtered)
        return x + y if self.shortcut == "bottleneck" else y

    def start_as_identity(self) -> None:
        """Initialises a block with a shortcut as the identity: its branch outputs zero.

        A branch that ends in ReLU6 is not changed: it would output zero forever, since the gradient
        of ReLU6 at zero is zero.
        """
        if self.shortcut == "bottleneck" and self.bottleneck == "linear":
            nn.init.zeros_(self.project.norm.weight)


class MobileNetV2(Backbone):
    """MobileNetV2 with an optional ImageNet-style classifier.

    Args:
        width_mult: Multiplier of every channel count; the result is rounded to a multiple of 8.
        output_stride: Input pixels per cell of the last feature: 32, or 16 or 8 by dilation.
        num_classes: Number of classes of a classifier (average pool, dropout, linear); None for no
            classifier.
        out_features: Features that `forward` returns: of any layer or expansion, at their own or
            a coarser stride.
        padding: Padding rule; `same` is TensorFlow's, for weights trained with TensorFlow.
        norm_eps: Epsilon of the batch norms: 1e-5 in torchvision's weights, 1e-3 in TensorFlow's.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.
        dropout: Dropout probability before the classifier.
        scale_last_layer: Whether a width_mult below 1 also scales the 1280 channels of `layer_19`,
            as in the detection models but not in the ImageNet models.
        bottleneck: Activation of the output of every block, see `InvertedResidual`; `linear` is the
            paper's network.
        shortcut: Layers that the shortcut of a block connects, see `InvertedResidual`; `bottleneck`
            is the paper's network.
        zero_init_residual: Whether to initialise the blocks with a shortcut as the identity.

    Raises:
        ValueError: For an unknown output stride, an unknown feature, or a feature at a stride that
            it cannot have.

    Source: paper table 2 and section 4; TensorFlow slim `mobilenet_v2.py`, `mobilenet.py`.
    """

    head_features = HeadFeatures(
        stride_4=Feature("layer_4"),
        stride_8=Feature("layer_7"),
        stride_16=Feature("layer_15", part=_EXPANSION, stride=16),
        stride_32=Feature(_LAST_LAYER, stride=32),
        auxiliary=Feature("layer_14"),
        dense=Feature("layer_18"),
        last=Feature(_LAST_LAYER),
    )

    def __init__(
        self,
        width_mult: float = 1.0,
        output_stride: int = 32,
        num_classes: int | None = None,
        *,
        out_features: Sequence[Feature] = (Feature(_LAST_LAYER),),
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        dropout: float = 0.2,
        scale_last_layer: bool = False,
        bottleneck: Bottleneck = "linear",
        shortcut: Shortcut = "bottleneck",
        zero_init_residual: bool = True,
    ) -> None:
        conv = partial(ConvBNAct, padding=padding, norm_eps=norm_eps, norm_momentum=norm_momentum)
        block = partial(InvertedResidual, conv=conv, bottleneck=bottleneck, shortcut=shortcut)
        last_width_mult = width_mult if scale_last_layer else max(1.0, width_mult)
        layers, specs = _build_layers(width_mult, last_width_mult, output_stride, conv, block)
        super().__init__(
            layers,
            specs,
            out_features=out_features,
            num_classes=num_classes,
            dropout=dropout,
            padding=padding,
        )
        self._initialise(zero_init_residual)

    def forward(
        self, images: Float[Tensor, "B 3 H W"], out_features: Sequence[Feature] | None = None
    ) -> dict[Feature, Tensor]:
        """Returns features of normalised images; see `Backbone.forward`."""
        collector = self.collector(out_features)
        x: Tensor = images
        for name, layer in self.layers.items():
            output = Feature(name)
            if isinstance(layer, InvertedResidual):
                expanded = layer.expand(x)
                collector.add(Feature(name, part=_EXPANSION), expanded)
                x = layer.contract(expanded, x)
            elif name == _LAST_LAYER:
                # A 1x1 convolution computes each cell independently, so it can run on the requested
                # cells only. This saves most of its work, and its batch norm then uses only those.
                request = collector.finest_request(output)
                x = layer(collector.subsample(x, output, request))
                output = request
            else:
                x = layer(x)
            collector.add(output, x)
        return collector.features()

    def _initialise(self, zero_init_residual: bool) -> None:
        """Sets the weights with which training from scratch starts.

        | layer | initial values |
        |---|---|
        | convolutions | Kaiming normal, fan out (torchvision; slim: truncated normal 0.09) |
        | batch norm | weight 1, bias 0 |
        | batch norm that ends the linear branch beside a shortcut, if `zero_init_residual` | weight
        0: the block starts as the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1),
        which speeds up the first epochs |
        | classifier | normal 0.01, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, InvertedResidual) and zero_init_residual:
                module.start_as_identity()


def _build_layers(
    width_mult: float,
    last_width_mult: float,
    output_stride: int,
    conv: Callable[..., ConvBNAct],
    block: Callable[..., InvertedResidual],
) -> tuple[dict[str, nn.Module], dict[Feature, FeatureSpec]]:
    """Returns the layers by name, and channels and stride of every feature.

    Args:
        width_mult: Multiplier of the channels of all layers except the last.
        last_width_mult: Multiplier of the channels of the last layer.
        output_stride: Input pixels per cell of the last feature.
        conv: Builder of the first and the last layer.
        block: Builder of the blocks between them.
    """
    dilation = Dilation(output_stride)
    channels = make_divisible(_STEM_CHANNELS * width_mult)
    stride, _ = dilation.step(2)
    layers: dict[str, nn.Module] = {"layer_1": conv(3, channels, 3, stride=stride)}
    specs = {Feature("layer_1"): FeatureSpec(channels, dilation.stride)}
    for expand_ratio, base_channels, repeats, first_stride in _INVERTED_RESIDUALS:
        for repeat in range(repeats):
            name = f"layer_{len(layers) + 1}"
            in_channels, channels = channels, make_divisible(base_channels * width_mult)
            in_stride = dilation.stride
            stride, rate = dilation.step(first_stride if repeat == 0 else 1)
            layer = block(
                in_channels, channels, expand_ratio=expand_ratio, stride=stride, dilation=rate
            )
            layers[name] = layer
            specs[Feature(name, part=_EXPANSION)] = FeatureSpec(layer.expanded_channels, in_stride)
            specs[Feature(name)] = FeatureSpec(channels, dilation.stride)
    last_channels = make_divisible(LAST_CHANNELS * last_width_mult)
    layers[_LAST_LAYER] = conv(channels, last_channels)
    specs[Feature(_LAST_LAYER)] = FeatureSpec(last_channels, dilation.stride)
    return layers, specs
