"""Mosaic: four images around a random centre, as one image for training.

Source: YOLOv4 (Bochkovskiy et al. 2020, arXiv:2004.10934), section 3.3. Differs: no image is
changed by itself before; crops, flips and colours follow on the whole mosaic.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from mbv2det.data.windows import Size, Window, are_kept, cut_out
from mbv2det.geometry import Frame
from mbv2det.structures import IGNORE_INDEX, Instances, Sample

NUM_TILES = 4


def mosaic(
    tiles: Sequence[Sample], size: Size, centre: tuple[int, int], fill: tuple[int, int, int]
) -> Sample:
    """Returns an image of four others, each of which has a corner in the centre.

    What reaches beyond its quadrant is cut off. Objects whose centre is cut off are dropped, others
    clipped; of ignored objects every visible part is kept. If the objects of one image are not
    annotated, those of the mosaic are not either.

    Args:
        tiles: Images at the top left, top right, bottom left and bottom right; the first one's key
            is that of the mosaic.
        size: Size of the mosaic in pixels.
        centre: Row and column where the quadrants meet.
        fill: Colour of the pixels without an image; their mask is ignored.
    """
    assert len(tiles) == NUM_TILES
    quadrants = _quadrants(size, centre)
    windows = [
        _window(tile.image.shape[:2], quadrant, is_below=k >= 2, is_right=k % 2 == 1)
        for k, (tile, quadrant) in enumerate(zip(tiles, quadrants, strict=True))
    ]
    image = np.empty((*size, 3), np.uint8)
    mask = None if tiles[0].mask is None else np.empty(size, np.uint8)
    for tile, quadrant, window in zip(tiles, quadrants, windows, strict=True):
        _pixels(image, quadrant)[:] = cut_out(window, tile.image, fill)
        if mask is not None and tile.mask is not None:
            _pixels(mask, quadrant)[:] = cut_out(window, tile.mask, IGNORE_INDEX)
    parts = [_moved(*part) for part in zip(tiles, quadrants, windows, strict=True)]
    known = [part for part in parts if part is not None]
    return replace(
        tiles[0],
        image=image,
        frame=Frame(size),
        instances=_joined(known) if len(known) == len(parts) else None,
        mask=mask,
        left_out={index: why for tile in tiles for index, why in tile.left_out.items()},
    )


def _quadrants(size: Size, centre: tuple[int, int]) -> list[Window]:
    """Returns the quadrants of the mosaic, in the order of the tiles."""
    (height, width), (y, x) = size, centre
    return [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]


def _window(tile: Size, quadrant: Window, *, is_below: bool, is_right: bool) -> Window:
    """Returns the window onto a tile that a quadrant shows."""
    rows, columns = quadrant[2] - quadrant[0], quadrant[3] - quadrant[1]
    top = 0 if is_below else tile[0] - rows
    left = 0 if is_right else tile[1] - columns
    return top, left, top + rows, left + columns


def _pixels(pixels: UInt8[np.ndarray, "H W ..."], window: Window) -> UInt8[np.ndarray, "h w ..."]:
    top, left, bottom, right = window
    return pixels[top:bottom, left:right]


def _moved(tile: Sample, quadrant: Window, window: Window) -> Instances | None:
    """Returns the objects of a tile in pixels of the mosaic; None if they are not annotated."""
    objects = tile.instances
    if objects is None:
        return None
    size = window[2] - window[0], window[3] - window[1]
    boxes = objects.boxes - np.array([window[1], window[0]] * 2, np.float32)
    kept = are_kept(boxes, size, objects.ignore)
    boxes = boxes[kept].clip(0, np.array([*size[::-1]] * 2, np.float32))
    corner = np.array([quadrant[1], quadrant[0]] * 2, np.float32)
    return Instances(boxes + corner, objects.labels[kept], objects.ignore[kept])


def _joined(parts: Sequence[Instances]) -> Instances:
    return Instances(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignore for part in parts]),
    )
