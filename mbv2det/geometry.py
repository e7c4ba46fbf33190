"""Pixel frames and boxes: the map between two frames, areas and overlaps of boxes.

Boxes are (x_min, y_min, x_max, y_max) in continuous pixel coordinates: pixel column i covers
[i, i + 1]. Conversions between box formats and clipping are torchvision's.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import clip_boxes_to_image


@dataclass(frozen=True)
class Frame:
    """The affine map from the pixels of an original image file to those of a working image.

    working = original * scale + offset, for each axis. A resize followed by a pad or a crop is one
    frame. Pairs are in the order (y, x).

    Attributes:
        original: Size of the original image, (height, width) in pixels.
        scale: Working pixels per original pixel, (y, x).
        offset: Position of the original image's top left corner in the working image, (y, x) in
            working pixels.
    """

    original: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def scaled(self, vertical: float, horizontal: float) -> "Frame":
        """Returns the frame after the working image was resized by these factors."""
        return Frame(
            self.original,
            (self.scale[0] * vertical, self.scale[1] * horizontal),
            (self.offset[0] * vertical, self.offset[1] * horizontal),
        )

    def boxes_to_working(self, boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Maps boxes from the original image to the working image, without clipping."""
        scale, offset = self._xyxy()
        return (boxes * scale + offset).astype(boxes.dtype)

    def boxes_to_original(self, boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Maps boxes from the working image to the original image and clips them to it."""
        scale, offset = (boxes.new_tensor(v) for v in self._xyxy())
        return clip_boxes_to_image((boxes - offset) / scale, self.original)

    def pixel_centres(self) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
        """Returns the working rows and columns on which the original's pixels are centred.

        They are pixel indices, unlike the continuous coordinates of boxes: 0 is the centre of the
        working image's first pixel.

        Returns:
            One row for each row of the original, one column for each of its columns; on the CPU.
        """
        rows, columns = (
            ((torch.arange(size, dtype=torch.float64) + 0.5) * scale + offset - 0.5).float()
            for size, scale, offset in zip(self.original, self.scale, self.offset, strict=True)
        )
        return rows, columns

    def _xyxy(self) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "4"]]:
        """Returns scale and offset in the order of a box's coordinates."""
        return np.array(self.scale[::-1] * 2), np.array(self.offset[::-1] * 2)


@dataclass(frozen=True)
class GraphFrame:
    """The frame of the images of a batch, inside an exported graph.

    All images of a batch have one size. It is that of the network input, or the graph resizes them.

    Attributes:
        original: Size of the images that the graph gets, (height, width) in pixels; symbolic
            numbers where the graph takes images of any size.
        sides: The same as a tensor.
        scale: Pixels of the network input per original pixel, (y, x); None where both are the same.
    """

    original: tuple[int, int]
    sides: Float[Tensor, "2"]
    scale: Float[Tensor, "2"] | None = None

    def boxes_to_original(self, boxes: Float[Tensor, "B A 4"]) -> Float[Tensor, "B A 4"]:
        """Maps xyxy boxes from the network input to the original images, without clipping."""
        return boxes if self.scale is None else boxes / self.scale.flip(0).repeat(2)

    def clipped(self, boxes: Float[Tensor, "B A 4"]) -> Float[Tensor, "B A 4"]:
        """Clips xyxy boxes of the original images to them."""
        return boxes.clamp(min=0.0).minimum(self.sides.flip(0).repeat(2))

    def pixel_centres(self) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
        """Returns the rows and columns of the network input on which original pixels are centred.

        As `Frame.pixel_centres`, in float32.
        """
        rows, columns = (
            torch.arange(side, device=self.sides.device).float() for side in self.original
        )
        if self.scale is None:
            return rows, columns
        return (rows + 0.5) * self.scale[0] - 0.5, (columns + 0.5) * self.scale[1] - 0.5


# torchvision's box_area does not clamp: an inverted box has a negative area there.
def box_area(boxes: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape"]:
    """Returns areas in square pixels; 0 for an inverted box (maximum below minimum)."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_intersection(
    first: Float[Tensor, "*batch N 4"], second: Float[Tensor, "*#batch A 4"]
) -> Float[Tensor, "*batch N A"]:
    """Returns the area shared by every box of `first` and every box of `second`.

    Args:
        first: A list of boxes, or a batch of lists.
        second: One list of boxes, compared with every list of `first`, or a batch of lists, each
            compared with the list of the same index.
    """
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


# torchvision's box_iou takes no batch, and divides 0 by 0 where both boxes are empty.
def pairwise_iou(
    first: Float[Tensor, "*batch N 4"], second: Float[Tensor, "*#batch A 4"]
) -> Float[Tensor, "*batch N A"]:
    """Returns the intersection over union of every pair; 0 where both boxes are empty.

    Args:
        first: A list of boxes, or a batch of lists.
        second: One list of boxes, compared with every list of `first`, or a batch of lists, each
            compared with the list of the same index.
    """
    shared = pairwise_intersection(first, second)
    union = box_area(first)[..., :, None] + box_area(second)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)
