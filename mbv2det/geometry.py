"""Boxes as rectangles in a plane: conversions, overlaps, and the map between two pixel frames."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """How the pixels of a working image lie over those of the original file.

    working = original * scale + offset, with (y, x) pairs, so that a resize followed by a pad or a
    crop is one frame.

    Attributes:
        original: Size of the original image.
        scale: Working pixels per original pixel.
        offset: Where the original's top left corner lies in the working image, in its pixels.
    """

    original: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def scaled(self, vertical: float, horizontal: float) -> "Frame":
        """The frame of the working image after it was resized by these factors."""
        return Frame(
            self.original,
            (self.scale[0] * vertical, self.scale[1] * horizontal),
            (self.offset[0] * vertical, self.offset[1] * horizontal),
        )

    def boxes_to_working(self, boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Maps boxes of the original image into the working image."""
        scale, offset = self._xyxy()
        return (boxes * scale + offset).astype(boxes.dtype)

    def boxes_to_original(self, boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
        """Maps boxes of the working image back and clips them to the original image."""
        scale, offset = (boxes.new_tensor(v) for v in self._xyxy())
        return clip_boxes((boxes - offset) / scale, self.original)

    def pixel_centres(self) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
        """Where the original's pixels are centred in the working image: rows and columns.

        Pixel indices, unlike the continuous coordinates of boxes: 0 is the centre of the working
        image's first pixel.
        """
        rows, columns = (
            ((torch.arange(size, dtype=torch.float64) + 0.5) * scale + offset - 0.5).float()
            for size, scale, offset in zip(self.original, self.scale, self.offset, strict=True)
        )
        return rows, columns

    def _xyxy(self) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "4"]]:
        return np.array(self.scale[::-1] * 2), np.array(self.offset[::-1] * 2)


def clip_boxes(boxes: Float[Tensor, "N 4"], size: tuple[int, int]) -> Float[Tensor, "N 4"]:
    """Moves every corner into the image.

    Args:
        boxes: Pixels.
        size: Of the image.
    """
    height, width = size
    limits = boxes.new_tensor([width, height, width, height])
    return boxes.clamp(min=0).minimum(limits)


def xyxy_to_cxcywh(boxes: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    """(x_min, y_min, x_max, y_max) to (x_centre, y_centre, width, height)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def cxcywh_to_xyxy(boxes: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    """(x_centre, y_centre, width, height) to (x_min, y_min, x_max, y_max)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def box_area(boxes: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape"]:
    """Area in square pixels; zero for an inverted box."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_intersection(
    first: Float[Tensor, "*batch N 4"], second: Float[Tensor, "A 4"]
) -> Float[Tensor, "*batch N A"]:
    """Area shared by every pair of a batch of box lists and one list."""
    low = torch.maximum(first[..., :, None, :2], second[:, :2])
    high = torch.minimum(first[..., :, None, 2:], second[:, 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(
    first: Float[Tensor, "*batch N 4"], second: Float[Tensor, "A 4"]
) -> Float[Tensor, "*batch N A"]:
    """Intersection over union of every pair; zero where both boxes are empty."""
    shared = pairwise_intersection(first, second)
    union = box_area(first)[..., :, None] + box_area(second) - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)
