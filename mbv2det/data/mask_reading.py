"""From the pixels of a mask file to one value per pixel: index, one of several channels, colour."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

from mbv2det.data.image_errors import image_errors
from mbv2det.errors import DataError

_ONE_CHANNEL = ("P", "L", "1", "I", "I;16", "I;16B", "I;16L")
_SEVERAL_CHANNELS = ("RGB", "RGBA", "LA", "RGBX", "PA")
_SHOWN_COLORS = 5

Color = tuple[int, int, int]
"""Red, green and blue, 0..255."""


@dataclass(frozen=True)
class MaskReading:
    """How the pixels of mask files become values.

    Without settings, masks have one channel, or colour channels that are equal.

    Attributes:
        colors: Colours (red, green, blue) and their values; None for masks that are values.
        channel: The channel of several that has the values; None for masks of one value per pixel.
    """

    colors: tuple[tuple[Color, int], ...] | None = None
    channel: int | None = None

    def read(self, path: Path) -> np.ndarray:
        """Reads the whole numbers of a mask, shape (H, W).

        Raises:
            DataError: If the file is no such mask.
        """
        image = _decode(path)
        if self.colors is not None:
            return self._values_of_colors(path, np.asarray(image.convert("RGB")))
        if image.mode in _ONE_CHANNEL:
            values = np.asarray(image)
            return values.astype(np.uint8) if values.dtype == bool else values
        if image.mode not in _SEVERAL_CHANNELS:
            raise DataError(
                f"{path}: expected a mask (palette or grey: one label value per pixel, or "
                f"colours), got an image of mode {image.mode}"
            )
        channels = np.asarray(image)
        if self.channel is None:
            return self._equal_channels(path, image.mode, channels)
        if not 0 <= self.channel < channels.shape[2]:
            raise DataError(
                f"{path}: expected data.mask_channel from 0 to {channels.shape[2] - 1} for an "
                f"image of mode {image.mode}, got {self.channel}"
            )
        return channels[:, :, self.channel]

    @cached_property
    def _value_of_code(self) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
        """Codes of the colours, ascending, and their values."""
        colors, values = zip(*self.colors or (), strict=True)
        codes = _code(np.array(colors))
        order = np.argsort(codes)
        return codes[order], np.array(values, np.int64)[order]

    def _values_of_colors(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        codes, values = self._value_of_code
        pixel_codes = _code(pixels)
        position = np.searchsorted(codes, pixel_codes).clip(0, len(codes) - 1)
        known = codes[position] == pixel_codes
        if not known.all():
            unknown, counts = np.unique(pixel_codes[~known], return_counts=True)
            most = unknown[np.argsort(-counts)][:_SHOWN_COLORS]
            colors = ", ".join(str([c >> 16, c >> 8 & 255, c & 255]) for c in most.tolist())
            raise DataError(
                f"{path}: expected only the {len(codes)} colours of data.mask_colors and "
                f"data.ignore_color, got {len(unknown)} others in {int((~known).sum())} pixels: "
                f"{colors}"
            )
        return values[position]

    def _equal_channels(self, path: Path, mode: str, channels: np.ndarray) -> np.ndarray:
        """Returns the value that all colour channels have, where alpha has no second meaning."""
        num_colors = 1 if mode in ("LA", "PA") else 3
        first = channels[:, :, 0]
        equal = (channels[:, :, :num_colors] == first[:, :, None]).all()
        opaque = all(np.ptp(alpha) == 0 for alpha in np.moveaxis(channels, 2, 0)[num_colors:])
        if equal and opaque:
            return first
        what = "colours" if num_colors == 3 and not equal else "transparency"
        raise DataError(
            f"{path}: expected an index image (one label value per pixel), got {what} in mode "
            f"{mode}; set data.mask_colors to the colour of each class, or data.mask_channel to "
            "the channel that has the values"
        )


def _code(pixels: np.ndarray) -> np.ndarray:
    """Returns colours in the last dimension as single numbers."""
    red, green, blue = (pixels[..., i].astype(np.int64) for i in range(3))
    return (red << 16) + (green << 8) + blue


def _decode(path: Path) -> Image.Image:
    with image_errors(path, "a mask"), Image.open(path) as image:
        image.load()
        return image
