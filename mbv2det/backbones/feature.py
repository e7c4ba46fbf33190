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
    """The features that a backbone offers to heads, by what they are good for.

    Every backbone declares its own, so that any head runs on any backbone.

    Attributes:
        stride_4: Last feature at stride 4: the low-level feature of DeepLabv3+'s decoder.
        stride_8: Last feature at stride 8: the low-level feature of LR-ASPP.
        stride_16: Feature at stride 16 for detection: the first level of SSD.
        stride_32: Feature at stride 32 for detection: the second level of SSD.
        auxiliary: Last feature before the deepest stage, for an auxiliary classifier.
        dense: Last feature that is worth its cost in segmentation, at the output stride.
        last: Last feature, for classification.
    """

    stride_4: Feature
    stride_8: Feature
    stride_16: Feature
    stride_32: Feature
    auxiliary: Feature
    dense: Feature
    last: Feature
