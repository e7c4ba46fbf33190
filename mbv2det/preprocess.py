"""From an image of any size to the network's input: the one place where images are resized."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mbv2det.geometry import Frame
from mbv2det.structures import IGNORE_INDEX, Instances, Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PreprocessSpec:
    """How images are brought to the form that a network was trained on.

    It belongs to the weights: it is stored in every file of them and loaded, never retyped.
    Interpolation is bilinear with antialiasing, as PIL's (of masks: the nearest pixel); colours are
    RGB.

    Attributes:
        size: (H, W) of the network input.
        resize: `stretch` fills the input and distorts the aspect ratio; `fit` scales the image to
            fit and pads on the right and below with the mean colour.
        mean: Of each channel, as a fraction of full brightness.
        std: Likewise.
    """

    size: tuple[int, int]
    resize: Literal["stretch", "fit"] = "stretch"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean as a colour, halves rounded up: what padding is made of."""
        red, green, blue = (int(value * 255 + 0.5) for value in self.mean)
        return red, green, blue


@dataclass(frozen=True)
class Preprocessor:
    """Applies a `PreprocessSpec`; images already of its size pass unchanged."""

    spec: PreprocessSpec

    def __call__(self, sample: Sample) -> Sample:
        """The sample at the network's input size, its boxes, mask and frame moved along."""
        size = (sample.image.shape[0], sample.image.shape[1])
        if size == self.spec.size:
            return sample
        content = self._resized(size)
        moved = self.frame(size)
        image = _resize(sample.image, content, Image.Resampling.BILINEAR)
        mask, found = sample.mask, sample.instances
        if mask is not None:
            mask = self._padded(_resize(mask, content, Image.Resampling.NEAREST), IGNORE_INDEX)
        if found is not None:
            boxes = moved.boxes_to_working(found.boxes)
            found = Instances(boxes, found.labels, found.ignore)
        frame = sample.frame.scaled(*moved.scale)
        image = self._padded(image, self.spec.fill)
        return replace(sample, image=image, instances=found, mask=mask, frame=frame)

    def frame(self, size: tuple[int, int]) -> Frame:
        """How the network's input lies over an image of this size."""
        height, width = self._resized(size)
        return Frame(size, (height / size[0], width / size[1]))

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size of the image's content within the network input."""
        if self.spec.resize == "stretch":
            return self.spec.size
        scale = min(self.spec.size[0] / size[0], self.spec.size[1] / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _padded(
        self, content: UInt8[np.ndarray, "h w ..."], fill: int | tuple[int, int, int]
    ) -> UInt8[np.ndarray, "H W ..."]:
        """The content at the top left of an input full of `fill`."""
        if content.shape[:2] == self.spec.size:
            return content
        canvas = np.empty((*self.spec.size, *content.shape[2:]), np.uint8)
        canvas[:] = fill
        canvas[: content.shape[0], : content.shape[1]] = content
        return canvas


def reduce(sample: Sample, factor: int) -> Sample:
    """The sample at a whole fraction of its size: each pixel the mean of a square.

    For images far larger than anything that will be shown of them. Masks take the pixel at the
    middle of the square; a square that reaches beyond the image counts as a whole one.

    Args:
        sample: Of any size.
        factor: Side of the squares; 1 changes nothing.
    """
    if factor == 1:
        return sample
    image = np.asarray(Image.fromarray(sample.image).reduce(factor))
    mask, found = sample.mask, sample.instances
    if mask is not None:
        rows, columns = (
            np.minimum(np.arange(cells) * factor + factor // 2, side - 1)
            for cells, side in zip(image.shape[:2], mask.shape, strict=True)
        )
        mask = mask[rows[:, None], columns]
    if found is not None:
        found = Instances(found.boxes / np.float32(factor), found.labels, found.ignore)
    return replace(
        sample,
        image=image,
        instances=found,
        mask=mask,
        frame=sample.frame.scaled(1 / factor, 1 / factor),
    )


def _resize(
    pixels: UInt8[np.ndarray, "H W ..."], size: tuple[int, int], how: Image.Resampling
) -> UInt8[np.ndarray, "h w ..."]:
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], how))
