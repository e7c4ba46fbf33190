"""How many objects are found, by their size and by how crowded they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.overlaps import iou, pair_up

SIZES = ("tiny", "small", "medium", "large", "very large")
"""Sizes of objects: areas up to 16^2, 32^2, 96^2, 256^2 square pixels, and above."""
_AREAS = (16**2, 32**2, 96**2, 256**2)

NEIGHBOURS = ("alone", "2 to 4", "5 to 9", "10 to 19", "20 or more")
"""Numbers of objects in the image of an object, itself included."""
_NUMBERS = (1, 4, 9, 19)

OVERLAPS = ("none", "up to 0.25", "0.25 to 0.5", "above 0.5")
"""The largest overlap (IoU) of an object with another one of its image."""
_IOUS = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class ObjectGroups:
    """Group of each object (M) by three properties: positions in the names above."""

    size: Int64[np.ndarray, " M"]
    neighbours: Int64[np.ndarray, " M"]
    overlap: Int64[np.ndarray, " M"]


def group_objects(truth: Objects) -> ObjectGroups:
    """Returns the groups of all objects."""
    image = truth.image
    numbers = np.bincount(image, minlength=truth.num_images)[image]
    pairs = pair_up(image, image)
    pairs = pairs.where(pairs.detection != pairs.object)
    overlaps = iou(truth.boxes[pairs.detection], truth.boxes[pairs.object])
    _, most = pairs.most_overlapped(overlaps, len(truth))
    return ObjectGroups(
        np.searchsorted(_AREAS, truth.areas, side="left"),
        np.searchsorted(_NUMBERS, numbers, side="left"),
        np.searchsorted(_IOUS, most, side="left"),
    )


def found_by_group(
    groups: Int64[np.ndarray, " M"],
    found: Bool[np.ndarray, " M"],
    labels: Int64[np.ndarray, " M"],
    num_groups: int,
    num_classes: int,
) -> Int64[np.ndarray, "2 K G"]:
    """Counts the found objects and all objects, by class and group."""
    cell = labels * num_groups + groups
    size = num_classes * num_groups
    counts = np.stack([np.bincount(cell[found], minlength=size), np.bincount(cell, minlength=size)])
    return counts.reshape(2, num_classes, num_groups)


def images_by_number(truth: Objects) -> Sequence[Float64[np.ndarray, " I"]]:
    """Returns for each of `NEIGHBOURS` the weights that select the images with so many objects."""
    counts = np.diff(truth.starts)
    group = np.searchsorted(_NUMBERS, counts, side="left")
    return [((group == number) & (counts > 0)).astype(np.float64) for number in range(5)]
