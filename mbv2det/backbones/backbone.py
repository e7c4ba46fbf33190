"""What all backbones share: features, their strides, and an optional classifier."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.classifier import Classifier
from mbv2det.backbones.dilation import subsample
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.layers import Padding

_STRIDES = (2, 4, 8, 16, 32)


class Backbone(nn.Module, ABC):
    """Base class of the backbones: layers that run one after the other, with outputs as features.

    A subclass builds the layers and runs them in its `forward`. Layers after the last one that a
    requested feature or the classifier needs are dropped.

    A feature may be requested at a coarser stride than the backbone computes it at, e.g.
    `Feature("layer_19", stride=32)` of a network of output stride 16. It then has the cells and the
    values of the network of that output stride: `subsample` selects them from the finer grid. One
    backbone can therefore serve a head that needs a fine grid and another that needs coarse grids.

    Args:
        layers: Layers by name, in the order in which they run.
        specs: Channels and stride of every feature, as the backbone computes it.
        out_features: Features that `forward` returns.
        num_classes: Number of classes of a classifier on `head_features.last`; None for
            no classifier.
        dropout: Dropout probability before the classifier.
        padding: Padding rule of the convolutions.

    Raises:
        TypeError: If `out_features` contains anything but `Feature` objects.
        ValueError: If a requested feature does not exist, or cannot have the requested stride.

    Attributes:
        head_features: The features that each kind of head reads.
        feature_specs: Channels and stride of every feature; those of `out_features` with a
            requested stride are included.
        out_features: Features that `forward` returns.
        padding: Padding rule of the convolutions.
        layers: Layers by name, in the order in which they run.
        classifier: The classifier; None if the backbone was built without one.
    """

    head_features: ClassVar[HeadFeatures]

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        specs: Mapping[Feature, FeatureSpec],
        *,
        out_features: Sequence[Feature],
        num_classes: int | None,
        dropout: float,
        padding: Padding,
    ) -> None:
        super().__init__()
        self.padding: Padding = padding
        self.out_features = tuple(out_features)
        requested = {feature: _requested_spec(feature, specs) for feature in out_features}
        self.feature_specs = {**specs, **requested}
        needed = {feature.layer for feature in out_features}
        if num_classes is not None:
            needed.add(self.head_features.last.layer)
        names = list(layers)
        depth = 1 + max(names.index(name) for name in needed)
        self.layers = nn.ModuleDict({name: layers[name] for name in names[:depth]})
        self.classifier = None
        if num_classes is not None:
            self.classifier = Classifier(
                specs, num_classes, head_features=self.head_features, dropout=dropout
            )

    @property
    def out_channels(self) -> int:
        """Channels of the last feature that `forward` returns; torchvision's detectors read it."""
        return self.feature_specs[self.out_features[-1]].channels

    @abstractmethod
    def forward(
        self, images: Float[Tensor, "B 3 H W"], out_features: Sequence[Feature] | None = None
    ) -> dict[Feature, Tensor]:
        """Returns features of normalised images.

        Args:
            images: Images, normalised as in the training of the weights.
            out_features: Features to return; by default those given to the constructor.

        Returns:
            (B, C, h, w) feature maps, in the order of `out_features`.
        """

    def classify(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Returns the class logits of normalised images.

        Raises:
            ValueError: If the backbone was built without a classifier.
        """
        if self.classifier is None:
            raise ValueError(
                "num_classes: expected a number of classes for classify(), got None: this "
                f"{type(self).__name__} was built without a classifier"
            )
        features = self(images, (self.classifier.input_feature,))
        return self.classifier(features, (images.shape[-2], images.shape[-1]))

    def collector(self, out_features: Sequence[Feature] | None) -> "FeatureCollector":
        """Returns an empty collector for one forward pass.

        Args:
            out_features: Features to collect; None for those given to the constructor.
        """
        requested = self.out_features if out_features is None else out_features
        return FeatureCollector(requested, self.feature_specs, self.padding)


class FeatureCollector:
    """Collects the requested features while the layers of a backbone run.

    Args:
        requested: Features to collect.
        specs: Channels and stride of every feature, as the backbone computes it.
        padding: Padding rule of the backbone's convolutions.
    """

    def __init__(
        self,
        requested: Sequence[Feature],
        specs: Mapping[Feature, FeatureSpec],
        padding: Padding,
    ) -> None:
        self._requested = requested
        self._specs = specs
        self._padding: Padding = padding
        self._collected: dict[Feature, Tensor] = {}

    def add(self, feature: Feature, x: Float[Tensor, "B C h w"]) -> None:
        """Keeps a feature map at each of the strides at which it is requested.

        Args:
            feature: Feature of `x`; its stride, if set, is that of `x`.
            x: The feature map.
        """
        for request in self._requests_of(feature):
            self._collected[request] = self.subsample(x, feature, request)

    def finest_request(self, feature: Feature) -> Feature:
        """Returns a feature at the finest stride at which it is requested.

        Without a request, this is the stride at which the backbone computes it.
        """
        strides = [self._stride(request) for request in self._requests_of(feature)]
        return replace(feature, stride=min(strides)) if strides else feature

    def subsample(
        self, x: Float[Tensor, "B C h w"], feature: Feature, request: Feature
    ) -> Float[Tensor, "B C i j"]:
        """Returns the values on the cells of a feature's grid at the stride of a request.

        Args:
            x: Values on the grid of `feature`.
            feature: Feature of that grid.
            request: The same feature at the same or a coarser stride.
        """
        halvings = (self._stride(request) // self._stride(feature)).bit_length() - 1
        return subsample(x, halvings, self._padding)

    def features(self) -> dict[Feature, Tensor]:
        """Returns the collected features in the order of the requests."""
        return {request: self._collected[request] for request in self._requested}

    def _requests_of(self, feature: Feature) -> list[Feature]:
        key = feature.without_stride()
        return [request for request in self._requested if request.without_stride() == key]

    def _stride(self, feature: Feature) -> int:
        return feature.stride or self._specs[feature].stride


def _requested_spec(feature: Feature, specs: Mapping[Feature, FeatureSpec]) -> FeatureSpec:
    """Returns channels and stride of a requested feature.

    Raises:
        TypeError: If it is not a `Feature`.
        ValueError: If it does not exist, or cannot have the requested stride.
    """
    if not isinstance(feature, Feature):
        raise TypeError(
            "out_features: expected objects of Feature, such as "
            f"{next(iter(specs))!r}, got {feature!r}"
        )
    computed = feature.without_stride()
    if computed not in specs:
        raise ValueError(f"out_features: expected features among {_listed(specs)}, got {feature}")
    spec = specs[computed]
    if feature.stride is None:
        return spec
    possible = [stride for stride in _STRIDES if stride >= spec.stride]
    if feature.stride not in possible:
        raise ValueError(
            f"out_features: expected one of the strides {possible} for {computed}, which the "
            f"backbone computes at stride {spec.stride}, got {feature.stride}"
        )
    return replace(spec, stride=feature.stride)


def _listed(features: Iterable[Feature]) -> str:
    return ", ".join(str(feature) for feature in features)
