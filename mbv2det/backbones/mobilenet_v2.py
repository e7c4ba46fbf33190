"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): linear bottlenecks, inverted residuals.

- Layers carry TensorFlow's names, `layer_1` (the stem) to `layer_19` (the last 1x1 convolution);
  torchvision's `features[k]` is `layer_{k + 1}`.
- Every layer's output is a feature tap; so is the inside of a block, after its expansion
  (`layer_15/expansion`: what SSDLite reads at stride 16).
- An output stride below 32 replaces the later strides by dilation, as DeepLab's code does.
  `layer_15/expansion@16` is that feature at the positions, and with the values, which it has in a
  network of output stride 16: wherever the actual stride is smaller, dilation has computed those
  cells among others, and only those are picked (`subsample`). So one backbone serves a head that
  wants a fine grid and one that wants strides.
- This file needs torch and nothing else of the toolkit's libraries: take it along.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.features import FeatureSpec
from mbv2det.backbones.layers import ConvBNAct, Padding, make_divisible, subsample

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
_LAST_CHANNELS = 1280
_LAST_LAYER = "layer_19"
_EXPANSION = "/expansion"
_AT_STRIDE = "@"
_STRIDES = (2, 4, 8, 16, 32)


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
    ) -> None:
        super().__init__()
        expanded = make_divisible(in_channels * expand_ratio) if expand_ratio > 1 else in_channels
        self.expanded_channels = expanded
        self.expand = conv(in_channels, expanded) if expanded > in_channels else nn.Identity()
        self.depthwise = conv(
            expanded, expanded, 3, stride=stride, dilation=dilation, groups=expanded
        )
        self.project = conv(expanded, out_channels, activation=None)
        self.has_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D i j"]:
        """Block output."""
        return self.contract(self.expand(x), x)

    def contract(
        self, expanded: Float[Tensor, "B E h w"], x: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B D i j"]:
        """Second half of the block, from the expansion and the block's input."""
        y = self.project(self.depthwise(expanded))
        return x + y if self.has_residual else y


class MobileNetV2(nn.Module):
    """The backbone, with an optional ImageNet-style classifier.

    `forward` gives the features named in `out_features`; `classify` gives logits. Layers behind
    the last one that is needed are not built, so a backbone that ends at `layer_18` has no
    `layer_19`.

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

    Raises:
        ValueError: For an output stride or a feature that does not exist, or a feature at a stride
            that it cannot be brought to.

    Attributes:
        feature_specs: Of every feature, and of those in `out_features` with a stride, by name.
        out_features: As given.

    Source: paper table 2 and section 4; TensorFlow slim `mobilenet_v2.py`, `mobilenet.py`.
    """

    def __init__(
        self,
        width_mult: float = 1.0,
        output_stride: int = 32,
        num_classes: int | None = None,
        *,
        out_features: Sequence[str] = ("layer_19",),
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        dropout: float = 0.2,
        scale_last_layer: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")
        layers: dict[str, nn.Module] = {}
        specs: dict[str, FeatureSpec] = {}
        channels = make_divisible(_STEM_CHANNELS * width_mult)
        conv = partial(ConvBNAct, padding=padding, norm_eps=norm_eps, norm_momentum=norm_momentum)
        layers["layer_1"] = conv(3, channels, 3, stride=2)
        specs["layer_1"] = FeatureSpec(channels, 2)
        total_stride, dilation = 2, 1
        for expand_ratio, base_channels, repeats, first_stride in _INVERTED_RESIDUALS:
            for repeat in range(repeats):
                name = f"layer_{len(layers) + 1}"
                stride = first_stride if repeat == 0 else 1
                # A layer that gives up its stride keeps the dilation so far; those after it,
                # which now see a finer grid, are dilated more.
                next_dilation = dilation
                if total_stride * stride > output_stride:
                    stride, next_dilation = 1, dilation * stride
                out_channels = make_divisible(base_channels * width_mult)
                block = InvertedResidual(
                    channels,
                    out_channels,
                    expand_ratio=expand_ratio,
                    stride=stride,
                    dilation=dilation,
                    conv=conv,
                )
                specs[name + _EXPANSION] = FeatureSpec(block.expanded_channels, total_stride)
                total_stride, dilation, channels = (
                    total_stride * stride,
                    next_dilation,
                    out_channels,
                )
                layers[name], specs[name] = block, FeatureSpec(channels, total_stride)
        last = _LAST_CHANNELS * (width_mult if scale_last_layer else max(1.0, width_mult))
        layers[_LAST_LAYER] = conv(channels, make_divisible(last))
        specs[_LAST_LAYER] = FeatureSpec(make_divisible(last), total_stride)

        self.padding: Padding = padding
        self.out_features = tuple(out_features)
        self.feature_specs = specs | {name: _spec_of(name, specs) for name in out_features}
        needed = {_feature_of(name).removesuffix(_EXPANSION) for name in out_features}
        if num_classes is not None:
            needed.add(_LAST_LAYER)
        depth = max(list(layers).index(name) for name in needed) + 1
        self.layers = nn.ModuleDict(dict(list(layers.items())[:depth]))
        self.classifier = (
            None
            if num_classes is None
            else nn.Sequential(
                nn.Dropout(dropout), nn.Linear(specs[_LAST_LAYER].channels, num_classes)
            )
        )
        self._initialise()

    @property
    def out_channels(self) -> int:
        """Channels of the last feature that `forward` returns, as torchvision's detectors ask."""
        return self.feature_specs[self.out_features[-1]].channels

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Features of normalised images.

        Returns:
            (B, C, h, w) by name, in the order of `out_features`.
        """
        found = self._run(images, self.out_features)
        return {name: found[name] for name in self.out_features}

    def classify(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Logits of normalised images.

        Raises:
            ValueError: If the network was built without a classifier.
        """
        if self.classifier is None:
            raise ValueError("num_classes: this MobileNetV2 was built without a classifier")
        return self.classifier(self._run(images, (_LAST_LAYER,))[_LAST_LAYER].mean(dim=(2, 3)))

    def _run(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        features = {_feature_of(name) for name in wanted}

        def keep(feature: str, value: Tensor, halved: int = 0) -> None:
            for name in wanted:
                if _feature_of(name) == feature:
                    found[name] = subsample(value, self._halvings(name) - halved, self.padding)

        for name, layer in self.layers.items():
            halved = 0
            if name == _LAST_LAYER and name in features:
                # Pointwise: subsampling may come first, which spares the cells nobody wants. That
                # is most of its work, and its batch norm then sees those that are wanted.
                halved = min(self._halvings(w) for w in wanted if _feature_of(w) == name)
                x = subsample(x, halved, self.padding)
            if isinstance(layer, InvertedResidual) and name + _EXPANSION in features:
                expanded = layer.expand(x)
                keep(name + _EXPANSION, expanded)
                x = layer.contract(expanded, x)
            else:
                x = layer(x)
            keep(name, x, halved)
        return found

    def _halvings(self, name: str) -> int:
        """How many times the grid of a feature is halved on the way to the stride in its name."""
        actual = self.feature_specs[_feature_of(name)].stride
        return (self.feature_specs[name].stride // actual).bit_length() - 1

    def _initialise(self) -> None:
        """How training from scratch begins.

        | layer | start |
        |---|---|
        | convolutions | Kaiming normal, fan out (torchvision; slim: truncated normal 0.09) |
        | batch norm | weight 1, bias 0 |
        | batch norm that ends a residual block | weight 0: the block starts as identity (Goyal et
        al. 2017, arXiv:1706.02677, section 5.1), which speeds up the first epochs |
        | classifier | normal 0.01, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
            elif isinstance(module, InvertedResidual) and module.has_residual:
                nn.init.zeros_(module.project.norm.weight)


def _feature_of(name: str) -> str:
    """The feature's name without the stride."""
    return name.partition(_AT_STRIDE)[0]


def _spec_of(name: str, specs: Mapping[str, FeatureSpec]) -> FeatureSpec:
    """What a feature is, whose name may carry a stride.

    Raises:
        ValueError: If there is no such feature or it cannot be brought to that stride.
    """
    feature, at, stride = name.partition(_AT_STRIDE)
    if feature not in specs:
        raise ValueError(f"out_features: expected names among {list(specs)}, got {name!r}")
    spec = specs[feature]
    possible = [s for s in _STRIDES if s >= spec.stride]
    if not at:
        return spec
    if stride not in map(str, possible):
        raise ValueError(
            f"out_features: {feature} has stride {spec.stride} here and can be brought to "
            f"{possible}, got {name!r}"
        )
    return replace(spec, stride=int(stride))
