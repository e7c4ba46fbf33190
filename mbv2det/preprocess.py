"""From an image of any size to the network's input: the one place where images are resized."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mbv2det.geometry import Frame
from mbv2det.structures import Instances, Sample

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PreprocessSpec:
    """How images are brought to the form that a network was trained on.

    It belongs to the weights: it is stored in every file of them and loaded, never retyped.
    Interpolation is bilinear with antialiasing, as PIL's; colours are RGB.

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
        """The sample at the network's input size, its boxes and frame moved along."""
        size = (sample.image.shape[0], sample.image.shape[1])
        if size == self.spec.size:
            return sample
        target = self._resized(size)
        image = Image.fromarray(sample.image).resize(target[::-1], Image.Resampling.BILINEAR)
        moved = self.frame(size)
        instances = Instances(
            moved.boxes_to_working(sample.instances.boxes),
            sample.instances.labels,
            sample.instances.ignore,
        )
        old = sample.frame
        frame = Frame(
            old.original,
            (old.scale[0] * moved.scale[0], old.scale[1] * moved.scale[1]),
            (old.offset[0] * moved.scale[0], old.offset[1] * moved.scale[1]),
        )
        return replace(
            sample, image=self._padded(np.asarray(image)), instances=instances, frame=frame
        )

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

    def _padded(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        if image.shape[:2] == self.spec.size:
            return image
        canvas = np.empty((*self.spec.size, 3), np.uint8)
        canvas[:] = self.spec.fill
        canvas[: image.shape[0], : image.shape[1]] = image
        return canvas
