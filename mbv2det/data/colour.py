"""SSD's colour distortions in one pass over the pixels.

Brightness, contrast and saturation are linear in RGB, so their product is one 3x4 matrix; hue
follows in HSV. Values are limited to 0..255 once at the end of each, not after every distortion.

Source: Liu et al. 2016 (arXiv:1512.02325), section 2.2; ranges of torchvision's
`RandomPhotometricDistort`.
"""

import random
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_RANGES = {
    "brightness": (0.875, 1.125),
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "hue": (-0.05, 0.05),
}
_LUMA = np.array([0.299, 0.587, 0.114])  # weights of RGB in grey (ITU-R BT.601)
_HUES = 180  # OpenCV's hues of uint8 images are 0..179
_MEAN_STEP = 4  # the mean is that of every fourth pixel of every fourth row


@dataclass(frozen=True)
class ColourDistortion:
    """A change of the colours of an image.

    Attributes:
        brightness: Factor of the values.
        contrast: Factor of the differences to the mean grey.
        saturation: Factor of the differences to the pixel's own grey.
        hue: Turn of the hue, in whole turns.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    @staticmethod
    def draw(generator: random.Random, p: float) -> "ColourDistortion":
        """Draws each distortion with probability `p`, independently."""
        drawn = {}
        for name, limits in _RANGES.items():
            if generator.random() < p:
                drawn[name] = generator.uniform(*limits)
        return ColourDistortion(**drawn)

    def apply(self, pixels: UInt8[np.ndarray, "h w 3"], mean: float) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels in other colours.

        Args:
            pixels: RGB pixels, the whole image or a part.
            mean: Mean grey of the whole image, of which contrast keeps its distance.
        """
        if (self.brightness, self.contrast, self.saturation) != (1, 1, 1):
            pixels = cv2.transform(pixels, self._matrix(mean)).reshape(pixels.shape)
        if self.hue:
            pixels = _turn_hue(pixels, self.hue)
        return pixels

    def _matrix(self, mean: float) -> Float[np.ndarray, "3 4"]:
        grey = np.tile(_LUMA, (3, 1))
        saturation = self.saturation * np.eye(3) + (1 - self.saturation) * grey
        offset = (1 - self.contrast) * self.brightness * mean
        linear = saturation * self.contrast * self.brightness
        return np.column_stack([linear, np.full(3, offset)])


def mean_grey(image: UInt8[np.ndarray, "H W 3"]) -> float:
    """Returns the mean grey of an image, from a sixteenth of its pixels."""
    return float(image[::_MEAN_STEP, ::_MEAN_STEP].reshape(-1, 3).mean(axis=0) @ _LUMA)


def _turn_hue(pixels: UInt8[np.ndarray, "h w 3"], turn: float) -> UInt8[np.ndarray, "h w 3"]:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hues = np.mod(np.arange(256) + _HUES * turn, _HUES).astype(np.uint8)
    hsv[..., 0] = cv2.LUT(hsv[..., 0], hues)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
