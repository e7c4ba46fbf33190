"""What every backbone has: layers in a row, named features, a classifier where one is asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.layers import Padding, subsample

_AT_STRIDE = "@"
_INSIDE = "/"
_STRIDES = (2, 4, 8, 16, 32)

Keep = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class FeatureSpec:
    """One named feature map.

    Attributes:
        channels: C of the (B, C, h, w) tensor.
        stride: Input pixels per feature cell, along each axis.
    """

    channels: int
    stride: int


@dataclass(frozen=True)
class Taps:
    """Which of a backbone's features a head reads for what: what makes backbones interchangeable.

    Attributes:
        detection: SSD's first two levels, at strides 16 and 32.
        segmentation: DeepLab's, of the output stride.
        auxiliary: The last before the deepest stage: for a second classifier that helps training.
        stride_8: For LR-ASPP.
        stride_4: For DeepLabv3+'s decoder.
        classification: The last.
    """

    detection: tuple[str, str]
    segmentation: str
    auxiliary: str
    stride_8: str
    stride_4: str
    classification: str


class Classifier(nn.Module):
    """Logits of whole images: average over the grid, dropout, linear.

    Args:
        in_channels: Of the feature.
        num_classes: Of the logits.
        dropout: Share of the averages that training leaves out.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.linear(self.dropout(x.mean(dim=(2, 3))))


class Backbone(nn.Module):
    """Layers in a row. Every layer's output is a feature; some have one inside.

    `forward` gives the features named in `out_features`; `classify` gives logits. Layers behind the
    last one that is needed are not built.

    `layer@16` is that feature at the positions, and with the values, which it has in a network of
    output stride 16: wherever the actual stride is smaller, dilation has computed those cells among
    others, and only those are picked (`subsample`). So one backbone serves a head that wants a fine
    grid and one that wants strides.

    Args:
        layers: By name, in order.
        specs: Of every feature: a layer's name, or `layer/inside`.
        out_features: Names that `forward` returns: features, each with `@` and a stride appended
            where a coarser grid is wanted than the feature has.
        num_classes: Builds a classifier on `taps.classification`; None builds none.
        dropout: Of the classifier.
        padding: Border rule of the strided convolutions.

    Raises:
        ValueError: For a feature that does not exist, or at a stride that it cannot be brought to.

    Attributes:
        taps: What heads read.
        feature_specs: Of every feature, and of those in `out_features` with a stride, by name.
        out_features: As given.
        padding: As given.
    """

    taps: ClassVar[Taps]
    # A last layer that looks at single cells: subsampling may come before it.
    pointwise_layer: ClassVar[str | None] = None

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        specs: Mapping[str, FeatureSpec],
        *,
        out_features: Sequence[str],
        num_classes: int | None,
        dropout: float,
        padding: Padding,
    ) -> None:
        super().__init__()
        self.padding: Padding = padding
        self.out_features = tuple(out_features)
        self.feature_specs = {**specs, **{name: _spec_of(name, specs) for name in out_features}}
        needed = {_layer_of(name) for name in out_features}
        last = self.taps.classification
        if num_classes is not None:
            needed.add(last)
        depth = max(list(layers).index(name) for name in needed) + 1
        self.layers = nn.ModuleDict(dict(list(layers.items())[:depth]))
        self.classifier = (
            None if num_classes is None else Classifier(specs[last].channels, num_classes, dropout)
        )

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
            raise ValueError(
                f"num_classes: this {type(self).__name__} was built without a classifier"
            )
        last = self.taps.classification
        return self.classifier(self._run(images, (last,))[last])

    def run_layer(self, name: str, x: Tensor, keep: Keep) -> Tensor:
        """The output of one layer; networks with features inside their layers show them to `keep`.

        Args:
            name: Of the layer.
            x: Its input.
            keep: Takes (name of a feature, value).
        """
        return self.layers[name](x)

    def _run(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        halved = 0

        def keep(feature: str, value: Tensor) -> None:
            for name in wanted:
                if _feature_of(name) == feature:
                    found[name] = subsample(value, self._halvings(name) - halved, self.padding)

        for name in self.layers:
            if name == self.pointwise_layer:
                # Spares the cells nobody wants, which are most of this layer's work; and its batch
                # norm then sees those that are wanted.
                asked = [self._halvings(w) for w in wanted if _feature_of(w) == name]
                halved = min(asked, default=0)
                x = subsample(x, halved, self.padding)
            x = self.run_layer(name, x, keep)
            keep(name, x)
        return found

    def _halvings(self, name: str) -> int:
        """How many times the grid of a feature is halved on the way to the stride in its name."""
        actual = self.feature_specs[_feature_of(name)].stride
        return (self.feature_specs[name].stride // actual).bit_length() - 1


def _feature_of(name: str) -> str:
    """The feature's name without the stride."""
    return name.partition(_AT_STRIDE)[0]


def _layer_of(name: str) -> str:
    """The layer that a feature comes from."""
    return _feature_of(name).partition(_INSIDE)[0]


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


@dataclass
class Dilation:
    """Turns strides beyond an output stride into dilation, layer by layer, as DeepLab's code does.

    Attributes:
        output_stride: Where strides end: 8, 16 or 32.
        stride: So far.
        rate: Of the next layer.

    Raises:
        ValueError: For another output stride.
    """

    output_stride: int
    stride: int = 1
    rate: int = 1

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {self.output_stride}")

    def step(self, stride: int) -> tuple[int, int]:
        """Stride and dilation that a layer of this nominal stride gets.

        A layer that gives up its stride keeps the dilation so far; those after it, which now see a
        finer grid, are dilated more.
        """
        rate = self.rate
        if self.stride * stride > self.output_stride:
            self.rate *= stride
            return 1, rate
        self.stride *= stride
        return stride, rate
