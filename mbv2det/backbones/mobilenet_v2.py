"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): linear bottlenecks, inverted residuals.

- Layers carry TensorFlow's names, `layer_1` (the stem) to `layer_19` (the last 1x1 convolution);
  torchvision's `features[k]` is `layer_{k + 1}`.
- Every layer's output is a feature; so is the inside of a block, after its expansion
  (`layer_15/expansion`: what SSDLite reads at stride 16).
- An output stride below 32 replaces the later strides by dilation, as DeepLab's code does; `@16`
  behind a feature's name brings it back to the grid that it has without (see `Backbone`).
- This folder's files but `resnet.py` need torch and nothing else of the toolkit's libraries: take
  them along.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.features import Backbone, Dilation, FeatureSpec, Keep, Taps
from mbv2det.backbones.layers import ConvBNAct, Padding, make_divisible

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
_EXPANSION = "/expansion"


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation (paper section 3.3, figure 4b).

    The input is added to the output where both have the same shape. An expansion that would not
    widen (expand_ratio 1) is left out.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        expand_ratio: Channels inside, per input channel.
        stride: Of the depthwise convolution.
        dilation: Of the depthwise convolution.
        conv: Makes the convolutions: `ConvBNAct` with the network's padding and norm settings.
        bottleneck: `relu6` activates the output too, which the paper's section 6 finds harmful.
        shortcut: What the shortcut, where there is one, connects: the thin ends (`bottleneck`, the
            paper's), the thick layers before and behind the depthwise convolution (`expansion`), or
            nothing; both others the paper's section 6 finds worse.
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
        activation = nn.ReLU6 if bottleneck == "relu6" else None
        self.project = conv(expanded, out_channels, activation=activation)
        fits = stride == 1 and in_channels == out_channels
        self.shortcut: Shortcut = shortcut if fits else "none"

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D i j"]:
        """Block output."""
        return self.contract(self.expand(x), x)

    def contract(
        self, expanded: Float[Tensor, "B E h w"], x: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B D i j"]:
        """Second half of the block, from the expansion and the block's input."""
        inside = self.depthwise(expanded)
        if self.shortcut == "expansion":
            inside = expanded + inside
        y = self.project(inside)
        return x + y if self.shortcut == "bottleneck" else y

    def start_as_identity(self) -> None:
        """Lets a linear branch beside a shortcut give zero.

        One that ends in ReLU6 would stay there: at zero ReLU6 has no gradient.
        """
        if self.shortcut == "bottleneck" and self.bottleneck == "linear":
            nn.init.zeros_(self.project.norm.weight)


class MobileNetV2(Backbone):
    """The backbone, with an optional ImageNet-style classifier.

    Args:
        width_mult: Multiplies every channel count, rounded to multiples of 8.
        output_stride: Input pixels per cell of the last feature: 32, or 16 or 8 by dilation.
        num_classes: Builds a classifier (average pool, dropout, linear); None builds none.
        out_features: Names that `forward` returns: features of any layer or expansion, each with
            `@` and a stride appended where a coarser grid is wanted than the feature has.
        padding: `same` pads as TensorFlow does: for weights that were trained there.
        norm_eps: Of batch norm: 1e-5 in torchvision's weights, 1e-3 in TensorFlow's.
        norm_momentum: Of batch norm, in PyTorch's sense.
        dropout: In front of the classifier.
        scale_last_layer: Lets width_mult < 1 shrink the 1280 channels of `layer_19`, as the
            detection models do and ImageNet's do not.
        bottleneck: As in `InvertedResidual`; the network of the paper is `linear`.
        shortcut: As in `InvertedResidual`; the network of the paper has `bottleneck`.
        zero_init_residual: Starts blocks with a shortcut as identity.

    Raises:
        ValueError: For an output stride or a feature that does not exist, or a feature at a stride
            that it cannot be brought to.

    Source: paper table 2 and section 4; TensorFlow slim `mobilenet_v2.py`, `mobilenet.py`.
    """

    taps = Taps(
        detection=("layer_15/expansion@16", "layer_19@32"),
        segmentation="layer_18",
        auxiliary="layer_14",
        stride_8="layer_7",
        stride_4="layer_4",
        classification=_LAST_LAYER,
    )
    pointwise_layer = _LAST_LAYER

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
        dropout: float = 0.2,
        scale_last_layer: bool = False,
        bottleneck: Bottleneck = "linear",
        shortcut: Shortcut = "bottleneck",
        zero_init_residual: bool = True,
    ) -> None:
        layers: dict[str, nn.Module] = {}
        specs: dict[str, FeatureSpec] = {}
        channels = make_divisible(_STEM_CHANNELS * width_mult)
        conv = partial(ConvBNAct, padding=padding, norm_eps=norm_eps, norm_momentum=norm_momentum)
        dilation = Dilation(output_stride)
        stride, _ = dilation.step(2)
        layers["layer_1"] = conv(3, channels, 3, stride=stride)
        specs["layer_1"] = FeatureSpec(channels, dilation.stride)
        for expand_ratio, base_channels, repeats, first_stride in _INVERTED_RESIDUALS:
            for repeat in range(repeats):
                name = f"layer_{len(layers) + 1}"
                expansion_stride = dilation.stride
                stride, rate = dilation.step(first_stride if repeat == 0 else 1)
                block = InvertedResidual(
                    channels,
                    make_divisible(base_channels * width_mult),
                    expand_ratio=expand_ratio,
                    stride=stride,
                    dilation=rate,
                    conv=conv,
                    bottleneck=bottleneck,
                    shortcut=shortcut,
                )
                channels = make_divisible(base_channels * width_mult)
                specs[name + _EXPANSION] = FeatureSpec(block.expanded_channels, expansion_stride)
                layers[name], specs[name] = block, FeatureSpec(channels, dilation.stride)
        last = LAST_CHANNELS * (width_mult if scale_last_layer else max(1.0, width_mult))
        layers[_LAST_LAYER] = conv(channels, make_divisible(last))
        specs[_LAST_LAYER] = FeatureSpec(make_divisible(last), dilation.stride)
        super().__init__(
            layers,
            specs,
            out_features=out_features,
            num_classes=num_classes,
            dropout=dropout,
            padding=padding,
        )
        self._initialise(zero_init_residual)

    def run_layer(self, name: str, x: Tensor, keep: Keep) -> Tensor:
        """The output of one layer; a block's expansion is kept as a feature."""
        layer = self.layers[name]
        if not isinstance(layer, InvertedResidual):
            return layer(x)
        expanded = layer.expand(x)
        keep(name + _EXPANSION, expanded)
        return layer.contract(expanded, x)

    def _initialise(self, zero_init_residual: bool) -> None:
        """How training from scratch begins.

        | layer | start |
        |---|---|
        | convolutions | Kaiming normal, fan out (torchvision; slim: truncated normal 0.09) |
        | batch norm | weight 1, bias 0 |
        | batch norm that ends the linear branch beside a shortcut, if `zero_init_residual` | weight
        0: the block starts as identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1), which
        speeds up the first epochs |
        | classifier | normal 0.01, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, InvertedResidual) and zero_init_residual:
                module.start_as_identity()
