"""What a backbone declares about its features, so that heads are built without a dummy forward."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureSpec:
    """One named feature map.

    Attributes:
        channels: C of the (B, C, h, w) tensor.
        stride: Input pixels per feature cell, along each axis.
    """

    channels: int
    stride: int
