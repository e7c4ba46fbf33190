"""Images of more than 8 bits (thermal, medical, scientific cameras), and how they become 8 bits.

Their values rarely fill the range of their type: a thermal camera may use 51000 to 52020 of 65536.
By their upper 8 bits alone, such an image has four grey values. The range that a network was
trained with is part of its preprocessing and travels with its weights.
"""

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mbv2det.errors import DataError

ValueRange = tuple[float, float]
"""The values that become 0 and 255; those outside are clipped."""

_FULL_16_BITS = (0, 65535)


def is_deep(image: Image.Image) -> bool:
    """Returns True for an image with one channel of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def depth_fault(image: Image.Image, value_range: ValueRange | None) -> tuple[str, ...]:
    """Returns a phrase if an image, not yet decoded, loses bits that no setting chose to lose."""
    if is_deep(image) and value_range is None:
        return ("more than 8 bits: 0..65535 becomes 0..255, as these weights have no value_range",)
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3]
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in mode for mode in raw_modes):
        return ("16 bits in each of several channels: only the upper 8 are used",)
    return ()


def to_8_bits(image: Image.Image, value_range: ValueRange | None) -> UInt8[np.ndarray, "H W"]:
    """Scales the values of a deep image to 0..255.

    Args:
        image: Image with one channel of more than 8 bits.
        value_range: Values that become 0 and 255; None for all of 16 bits.

    Raises:
        DataError: If the image has fractions as values, and no range.
    """
    if value_range is None:
        if image.mode == "F":
            raise DataError(
                "expected a value range for an image of floating-point values: train with "
                "data.value_range, or convert the image to 8 bits"
            )
        return (np.asarray(image).clip(*_FULL_16_BITS) // 256).astype(np.uint8)
    low, high = value_range
    values = np.nan_to_num(np.asarray(image, np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)


def range_of(image: Image.Image) -> ValueRange | None:
    """Returns the smallest and largest value of a deep image; None for an image of 8 bits."""
    if not is_deep(image):
        return None
    values = np.asarray(image, np.float64)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def joined(ranges: list[ValueRange]) -> ValueRange | None:
    """Returns the range that contains all ranges; None for none, or if it has a single value."""
    low = min((low for low, _ in ranges), default=math.nan)
    high = max((high for _, high in ranges), default=math.nan)
    return (low, high) if low < high else None
