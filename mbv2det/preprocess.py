"""Preprocessing: from an image of any size to the network's input size.

Images that a network sees are resized here and nowhere else, so training, evaluation and prediction
cannot disagree.

- torch's antialiased resize of uint8 images is five to ten times as fast as PIL's, and follows the
  same rules: no pixel differs by more than 1.
- Masks are resized by PIL, which picks the pixel at the centre.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image

from mbv2det.geometry import Frame
from mbv2det.structures import IGNORE_INDEX, Instances, Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PreprocessSpec:
    """Preprocessing that a network was trained with.

    It belongs to the weights: every weights file stores it, and it is loaded, never retyped.
    Images are RGB. They are resized bilinearly with antialiasing, as PIL does, but for
    differences of 1 in a value; masks take the nearest pixel.

    Attributes:
        size: Size of the network input, (height, width) in pixels.
        resize: Resize rule. `stretch` fills the input and changes the aspect ratio; `fit` keeps the
            aspect ratio and pads on the right and at the bottom with the mean colour.
        mean: Mean of each RGB channel, as a fraction of full brightness.
        std: Standard deviation of each RGB channel, as a fraction of full brightness.
        value_range: Values of images of more than 8 bits that become 0 and 255; None for all of 16
            bits. Images of 8 bits are not changed.
    """

    size: tuple[int, int]
    resize: Literal["stretch", "fit"] = "stretch"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    value_range: tuple[float, float] | None = None

    @property
    def fill(self) -> tuple[int, int, int]:
        """Colour of the padding: the mean as uint8 RGB, halves rounded up."""
        red, green, blue = (int(value * 255 + 0.5) for value in self.mean)
        return red, green, blue


@dataclass(frozen=True)
class Preprocessor:
    """Applies a `PreprocessSpec`; images that already have its size pass unchanged.

    Normalisation is not done here: it is the first layer of the model.

    Attributes:
        spec: Size and resize rule to apply.
    """

    spec: PreprocessSpec

    def __call__(self, sample: Sample) -> Sample:
        """Resizes a sample to the network's input size: image, boxes, mask and frame."""
        resized = self.resized(sample)
        if resized.image.shape[:2] == self.spec.size:
            return resized
        mask = None if resized.mask is None else self._pad(resized.mask, IGNORE_INDEX)
        return replace(resized, image=self._pad(resized.image, self.spec.fill), mask=mask)

    def resized(self, sample: Sample) -> Sample:
        """Resizes a sample as `__call__` does, but does not pad it."""
        size = (sample.image.shape[0], sample.image.shape[1])
        content_size = self._content_size(size)
        if size in (content_size, self.spec.size):
            return sample
        resize_frame = self.frame(size)
        mask, instances = sample.mask, sample.instances
        if mask is not None:
            mask = resize_mask(mask, content_size)
        if instances is not None:
            boxes = resize_frame.boxes_to_working(instances.boxes)
            instances = Instances(boxes, instances.labels, instances.ignore)
        return replace(
            sample,
            image=resize_image(sample.image, content_size),
            instances=instances,
            mask=mask,
            frame=sample.frame.scaled(*resize_frame.scale),
        )

    def frame(self, size: tuple[int, int]) -> Frame:
        """Returns the frame of the network input for an image of this size."""
        height, width = self._content_size(size)
        return Frame(size, (height / size[0], width / size[1]))

    def _content_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the size of the resized image within the network input, without the padding."""
        if self.spec.resize == "stretch":
            return self.spec.size
        scale = min(self.spec.size[0] / size[0], self.spec.size[1] / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _pad(
        self, content: UInt8[np.ndarray, "h w ..."], fill: int | tuple[int, int, int]
    ) -> UInt8[np.ndarray, "H W ..."]:
        """Pads on the right and at the bottom with `fill`, up to the size of the input."""
        if content.shape[:2] == self.spec.size:
            return content
        canvas = np.empty((*self.spec.size, *content.shape[2:]), np.uint8)
        canvas[:] = fill
        canvas[: content.shape[0], : content.shape[1]] = content
        return canvas


def unchanged(sample: Sample) -> Sample:
    """The preprocessing of a network that resizes images itself: none."""
    return sample


def downscale(sample: Sample, factor: int) -> Sample:
    """Shrinks a sample by a whole factor: each new pixel is the mean of a square of pixels.

    It saves time on images that are far larger than the network will see them. Masks take the pixel
    at the middle of each square. Where the size is not a multiple of the factor, the last squares
    reach beyond the image, and the frame counts them as whole ones.

    Args:
        sample: Sample of any size.
        factor: Side of the squares in pixels; with 1 the sample is returned as it is.
    """
    if factor == 1:
        return sample
    image = np.asarray(Image.fromarray(sample.image).reduce(factor))
    mask = None if sample.mask is None else reduce_mask(sample.mask, factor)
    instances = None if sample.instances is None else reduce_boxes(sample.instances, factor)
    frame = sample.frame.scaled(1 / factor, 1 / factor)
    return replace(sample, image=image, instances=instances, mask=mask, frame=frame)


def reduce_boxes(instances: Instances, factor: int) -> Instances:
    """Returns the objects of an image that was shrunk by `factor`."""
    return Instances(instances.boxes / np.float32(factor), instances.labels, instances.ignore)


def reduce_mask(mask: UInt8[np.ndarray, "H W"], factor: int) -> UInt8[np.ndarray, "h w"]:
    """Returns the pixel at the middle of each square of `factor` pixels, as `downscale` does."""
    rows, columns = (
        np.minimum(np.arange(-(-side // factor)) * factor + factor // 2, side - 1)
        for side in mask.shape
    )
    return mask[rows[:, None], columns]


def resize_image(
    image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns an image resized to (height, width) `size`, bilinearly with antialiasing."""
    # PIL's arrays are read-only, of which torch warns: they are copied.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    # In this order torch sees that the channels of a pixel stand together, and copies nothing.
    channels_last = pixels[None].permute(0, 3, 1, 2)
    resized = F.interpolate(channels_last, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def resize_mask(mask: UInt8[np.ndarray, "H W"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Returns a mask resized to (height, width) `size`; every pixel takes the nearest one."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
