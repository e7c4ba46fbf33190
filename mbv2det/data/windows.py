"""Windows onto an image, for crops and expansions.

A window may reach beyond the image. The functions are pure geometry on numpy arrays, without random
numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

Size = tuple[int, int]
"""(height, width) in pixels."""

Window = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels of the image."""


def cut_out(
    window: Window,
    pixels: UInt8[np.ndarray, "H W ..."],
    fill: int | tuple[int, int, int],
    change: Callable[[Any], Any] = lambda inside: inside,
) -> UInt8[np.ndarray, "h w ..."]:
    """Returns the pixels inside a window.

    Args:
        window: Window, which may reach beyond the image.
        pixels: Image or mask.
        fill: Colour or label of the pixels beyond the image.
        change: Function of the pixels of the image that are inside the window.
    """
    top, left, bottom, right = window
    height, width = pixels.shape[:2]
    inside = pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    inside = change(inside) if inside.size else inside
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return inside
    canvas = np.empty((bottom - top, right - left, *pixels.shape[2:]), np.uint8)
    row = np.empty(canvas.shape[1:], np.uint8)
    row[:] = fill
    canvas[:] = row  # four times as fast as filling it pixel by pixel
    y, x = max(0, -top), max(0, -left)
    if inside.size:
        canvas[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return canvas


def joined(first: Window, second: Window) -> Window:
    """Returns the window onto the image that is the second window onto the first one's pixels."""
    top, left = first[:2]
    return second[0] + top, second[1] + left, second[2] + top, second[3] + left


def move_boxes(
    boxes: Float[np.ndarray, "N M"],
    size: Sequence[int],
    new_size: Sequence[int],
    corner: tuple[int, int],
) -> Float[np.ndarray, "N M"]:
    """Converts boxes relative to an image into boxes relative to a canvas that contains the image.

    Args:
        boxes: xyxy boxes as fractions of the image; further columns are not changed.
        size: (height, width) of the image.
        new_size: (height, width) of the canvas.
        corner: (y, x) of the image's top left corner in pixels of the canvas; may be negative.
    """
    moved = boxes.copy()
    scale, shift = np.array([*size[::-1]] * 2), np.array([*corner[::-1]] * 2)
    moved[:, :4] = (boxes[:, :4] * scale + shift) / np.array([*new_size[::-1]] * 2)
    return moved


def are_kept(
    boxes: Float[np.ndarray, "N M"], size: Sequence[float], ignored: Bool[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Returns True for boxes that a window keeps: whose centre it contains, and visible ignored.

    Ignored objects are kept as long as any part of them is visible: that part must not be trained
    as background.

    Args:
        boxes: xyxy boxes relative to the window; further columns are not read.
        size: (height, width) of the window.
        ignored: True for ignored objects.
    """
    limits = np.array(size[::-1])
    centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
    inside = ((centres > 0) & (centres < limits)).all(axis=1)
    touching = (np.minimum(boxes[:, 2:4], limits) > np.maximum(boxes[:, :2], 0)).all(axis=1)
    return inside | (ignored & touching)


def are_admissible(
    crops: Shaped[np.ndarray, "T 4"], boxes: Float[np.ndarray, "N 4"], min_iou: float
) -> Bool[np.ndarray, " T"]:
    """Returns True for crops that contain the centre of an object and overlap it by `min_iou`.

    Args:
        crops: Crops as xyxy boxes in pixels.
        boxes: Objects in the same pixels.
        min_iou: Smallest intersection over union of the crop and the object.
    """
    crops = crops[:, None].astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > crops[..., :2]) & (centres < crops[..., 2:])).all(axis=-1)
    sides = np.minimum(crops[..., 2:], boxes[:, 2:]) - np.maximum(crops[..., :2], boxes[:, :2])
    shared = sides.clip(min=0).prod(axis=-1)
    areas = (crops[..., 2:] - crops[..., :2]).prod(axis=-1)
    union = areas + (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) - shared
    return (inside & (shared >= min_iou * union)).any(axis=1)
