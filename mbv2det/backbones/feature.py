"""Feature maps of a backbone: identifiers, channels and strides."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Feature:
    """Identifier of one feature map of a backbone.

    Attributes:
        layer: Name of the layer.
        part: Name of a feature map inside the layer; None for the output of the layer.
        stride: Input pixels per cell of the grid at which the feature map is requested; None for
            the grid on which the backbone computes it. A requested stride may be coarser, not
            finer, than the backbone's (see `Backbone`).
    """

    layer: str
    part: str | None = None
    stride: int | None = None

    def __str__(self) -> str:
        """Returns a readable form, e.g. `layer_15.expansion at stride 16`."""
        name = self.layer if self.part is None else f"{self.layer}.{self.part}"
        return name if self.stride is None else f"{name} at stride {self.stride}"

    def without_stride(self) -> "Feature":
        """Returns the same feature map on the grid on which the backbone computes it."""
        return replace(self, stride=None)


@dataclass(frozen=True)
class FeatureSpec:
    """Channels and stride of a feature map.

    Attributes:
        channels: Number of channels C of the (B, C, h, w) tensor.
        stride: Input pixels per feature cell, along each axis.
    """

    channels: int
    stride: int


@dataclass(frozen=True)
class HeadFeatures:
    """The features of a backbone that each kind of head reads.

    Every backbone declares its own, so that any head runs on any backbone.

    Attributes:
        detection: The first two levels of SSD, at strides 16 and 32.
        segmentation: Input of DeepLabv3 and LR-ASPP, at the output stride.
        auxiliary: The last feature before the deepest stage, for the auxiliary classifier that
            helps training.
        stride_8: Low-level feature of LR-ASPP.
        stride_4: Low-level feature of DeepLabv3+'s decoder.
        classification: The last feature.
    """

    detection: tuple[Feature, Feature]
    segmentation: Feature
    auxiliary: Feature
    stride_8: Feature
    stride_4: Feature
    classification: Feature
