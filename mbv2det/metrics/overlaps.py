"""Pairs of a detection and an object, and how far their boxes overlap."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

NO_OBJECT = -1
"""Index that stands for no object, for a detection that overlaps none."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of a detection and an object, in the order of the detections, then of the objects.

    Attributes:
        detection: Row of the detection of each pair.
        object: Row of the object of each pair.
    """

    detection: Int64[np.ndarray, " P"]
    object: Int64[np.ndarray, " P"]

    def __len__(self) -> int:
        return len(self.detection)

    def where(self, kept: Bool[np.ndarray, " P"]) -> "Pairs":
        """Returns some of the pairs, in the same order."""
        return Pairs(self.detection[kept], self.object[kept])

    def most_overlapped(
        self, overlaps: Float64[np.ndarray, " P"], num_detections: int
    ) -> tuple[Int64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
        """Returns the object that each detection overlaps most, and their IoU.

        Of equally overlapped objects the first is returned. For a detection without any pair, the
        result is `NO_OBJECT` and zero.

        Args:
            overlaps: IoU of each pair.
            num_detections: Number of detections.
        """
        most_first = np.lexsort((-overlaps, self.detection))
        with_any, best = np.unique(self.detection[most_first], return_index=True)
        objects = np.full(num_detections, NO_OBJECT, dtype=np.int64)
        overlap = np.zeros(num_detections)
        objects[with_any] = self.object[most_first[best]]
        overlap[with_any] = overlaps[most_first[best]]
        return objects, overlap


def pair_up(groups: Int64[np.ndarray, " M"], detection_groups: Int64[np.ndarray, " D"]) -> Pairs:
    """Pairs every detection with every object of its group, such as those of its image.

    Args:
        groups: Group of each object.
        detection_groups: Group of each detection.
    """
    by_group = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[by_group], detection_groups, side="left")
    count = np.searchsorted(groups[by_group], detection_groups, side="right") - first
    detection = np.repeat(np.arange(len(detection_groups)), count)
    offset = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return Pairs(detection, by_group[np.repeat(first, count) + offset])


def iou(
    first: Float64[np.ndarray, "P 4"], second: Float64[np.ndarray, "P 4"]
) -> Float64[np.ndarray, " P"]:
    """Returns the intersection over union row by row; zero where the boxes do not overlap."""
    shared = intersection(first, second)
    first_area = (first[:, 2:] - first[:, :2]).prod(axis=1)
    union = first_area + (second[:, 2:] - second[:, :2]).prod(axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def intersection(
    first: Float64[np.ndarray, "P 4"], second: Float64[np.ndarray, "P 4"]
) -> Float64[np.ndarray, " P"]:
    """Returns the area of the intersection row by row."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    return (high - low).clip(min=0).prod(axis=1)
