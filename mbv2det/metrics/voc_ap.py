"""PASCAL VOC's average precision of boxes, after its development kits.

Notable choices:

* VOC's pixel coordinates are inclusive, so that a box is xmax - xmin + 1 wide; boxes here are
  continuous. An annotation (xmin, ymin, xmax, ymax) read as (xmin - 1, ymin - 1, xmax, ymax) has
  the same widths and overlaps, hence the same numbers.
* COCO's crowds count as difficult objects.
* The eleven recalls of VOC2007 are exactly 0/10, 1/10, ... 10/10. Built up in steps of 0.1, as the
  kit does, three of them lie one rounding error higher and miss a recall of just 3/10.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.metrics.ground_truth import GroundTruth, ScoredBoxes

NOTHING = -1
"""Stands for the object where a detection overlaps none."""


class VocAP(TypedDict):
    """Both of VOC's averages, 0..1, over the classes and for each; None without ground truth."""

    VOC07: float | None
    VOC10: float | None
    per_class_07: dict[str, float | None]
    per_class_10: dict[str, float | None]


@dataclass(frozen=True)
class _Curve:
    """Precision against recall of one class, a point for each detection, best score first."""

    recall: Float64[np.ndarray, " D"]
    precision: Float64[np.ndarray, " D"]


def voc_ap(truth: GroundTruth, found: ScoredBoxes, iou_threshold: float = 0.5) -> VocAP:
    """Compares detections with the ground truth as VOC does.

    Best score first, a detection goes to the object of its class and image that it overlaps most,
    whether or not that one is difficult or taken. It is right if the overlap reaches the threshold
    and the object is not yet taken, it does not count if that object is difficult, and is wrong
    otherwise. Equal scores go by the number of the image.

    Args:
        truth: All objects of the images that take part.
        found: Boxes of images outside 0..num_images-1 take no part.
        iou_threshold: Overlap, as intersection over union, that a right detection needs.

    Source: VOCevaldet.m and VOCap.m of the VOC2007 and VOC2010 to VOC2012 development kits;
        Everingham et al. 2010, sec. 4.2 (doi:10.1007/s11263-009-0275-4).
    """
    found = _best_first(found, truth.num_images)
    matched, overlap = _most_overlapped(truth, found)
    reached = overlap >= iou_threshold
    ignored = np.zeros_like(reached)
    ignored[reached] = truth.ignore[matched[reached]]
    right = _first_of_each(matched, reached & ~ignored)

    per_class_07: dict[str, float | None] = {}
    per_class_10: dict[str, float | None] = {}
    for label, name in enumerate(truth.class_names):
        num_objects = int(np.count_nonzero((truth.labels == label) & ~truth.ignore))
        if not num_objects:
            per_class_07[name] = per_class_10[name] = None
            continue
        curve = _curve(right[(found.labels == label) & ~ignored], num_objects)
        per_class_07[name] = _eleven_point_mean(curve)
        per_class_10[name] = _area_under(curve)
    return VocAP(
        VOC07=_mean_over_classes(per_class_07),
        VOC10=_mean_over_classes(per_class_10),
        per_class_07=per_class_07,
        per_class_10=per_class_10,
    )


def _best_first(found: ScoredBoxes, num_images: int) -> ScoredBoxes:
    order = np.lexsort((found.image, -found.scores))
    order = order[(found.image[order] >= 0) & (found.image[order] < num_images)]
    return ScoredBoxes(
        found.image[order], found.boxes[order], found.scores[order], found.labels[order]
    )


def _most_overlapped(
    truth: GroundTruth, found: ScoredBoxes
) -> tuple[Int64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """For every detection the object it overlaps most, the first of equals, and how much.

    Where its image has no object of its class, `NOTHING` and zero.
    """
    num_classes = len(truth.class_names)
    groups = truth.image * num_classes + truth.labels
    wanted = found.image * num_classes + found.labels
    by_group = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[by_group], wanted, side="left")
    count = np.searchsorted(groups[by_group], wanted, side="right") - first

    # Every detection paired with every object of its class and image, as two flat columns.
    detection = np.repeat(np.arange(len(found)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    candidate = by_group[np.repeat(first, count) + within]
    overlaps = _iou(found.boxes[detection], truth.boxes[candidate])

    most_first = np.lexsort((-overlaps, detection))
    detection_with_any, best = np.unique(detection[most_first], return_index=True)
    matched = np.full(len(found), NOTHING, dtype=np.int64)
    overlap = np.zeros(len(found))
    matched[detection_with_any] = candidate[most_first[best]]
    overlap[detection_with_any] = overlaps[most_first[best]]
    return matched, overlap


def _iou(
    first: Float64[np.ndarray, "P 4"], second: Float64[np.ndarray, "P 4"]
) -> Float64[np.ndarray, " P"]:
    """Intersection over union, row by row; zero where the boxes do not overlap."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1)
    areas = (first[:, 2:] - first[:, :2]).prod(axis=1) + (second[:, 2:] - second[:, :2]).prod(
        axis=1
    )
    return np.divide(shared, areas - shared, out=np.zeros_like(shared), where=shared > 0)


def _first_of_each(
    matched: Int64[np.ndarray, " D"], eligible: Bool[np.ndarray, " D"]
) -> Bool[np.ndarray, " D"]:
    """Marks the first eligible detection of every object."""
    rows = np.flatnonzero(eligible)
    _, first = np.unique(matched[rows], return_index=True)
    chosen = np.zeros_like(eligible)
    chosen[rows[first]] = True
    return chosen


def _curve(right: Bool[np.ndarray, " D"], num_objects: int) -> _Curve:
    num_right = np.cumsum(right)
    return _Curve(num_right / num_objects, num_right / np.arange(1, len(right) + 1))


def _eleven_point_mean(curve: _Curve) -> float:
    """VOC2007: the mean over recalls 0, 0.1, ... 1 of the best precision at that recall or more."""
    recalls = np.arange(11) / 10
    best = [curve.precision[curve.recall >= recall].max(initial=0) for recall in recalls]
    return float(np.mean(best))


def _area_under(curve: _Curve) -> float:
    """VOC2010 and later: the area under the precision made monotonically decreasing."""
    steps = np.diff(curve.recall, prepend=0)
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float(steps @ envelope)


def _mean_over_classes(per_class: dict[str, float | None]) -> float | None:
    measured = [value for value in per_class.values() if value is not None]
    return float(np.mean(measured)) if measured else None
