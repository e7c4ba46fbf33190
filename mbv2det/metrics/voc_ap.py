"""PASCAL VOC's average precision of boxes, after its development kits.

Notable choices:

- VOC's pixel coordinates are inclusive, so that a box is xmax - xmin + 1 wide; boxes here are
  continuous. An annotation (xmin, ymin, xmax, ymax) read as (xmin - 1, ymin - 1, xmax, ymax) has
  the same widths and overlaps, hence the same numbers.
- COCO's crowds count as difficult objects.
- The eleven recalls of VOC2007 are exactly 0/10, 1/10, ... 10/10. Summed up in steps of 0.1, as in
  the kit, three of them are a rounding error too high, and a recall of exactly 3/10 misses its
  point.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.overlaps import iou, pair_up
from mbv2det.metrics.scored_boxes import ScoredBoxes


class VocAP(TypedDict):
    """VOC's two averages over all classes and of each class, in 0..1; None without ground truth."""

    VOC07: float | None
    VOC10: float | None
    per_class_07: dict[str, float | None]
    per_class_10: dict[str, float | None]


@dataclass(frozen=True)
class _Curve:
    """Precision and recall of one class after each detection, best score first."""

    recall: Float64[np.ndarray, " D"]
    precision: Float64[np.ndarray, " D"]


def voc_ap(truth: Objects, detections: ScoredBoxes, iou_threshold: float = 0.5) -> VocAP:
    """Computes VOC's average precision of detections.

    Best score first, a detection is matched with the object of its class and image that it overlaps
    most, even if that object is difficult or already matched. If the overlap reaches the threshold,
    the detection is right if the object is not yet matched, and does not count if the object is
    difficult. All other detections are wrong. Equal scores are ordered by the index of the image.

    Args:
        truth: Ground truth of all images that are evaluated.
        detections: Detections; those outside the images 0..num_images-1 are left out.
        iou_threshold: Smallest intersection over union of a right detection.

    Source: VOCevaldet.m and VOCap.m of the VOC2007 and VOC2010 to VOC2012 development kits;
        Everingham et al. 2010, sec. 4.2 (doi:10.1007/s11263-009-0275-4).
    """
    detections = _best_first(detections, truth.num_images)
    matched, overlap = _most_overlapped(truth, detections)
    reached = overlap >= iou_threshold
    ignored = np.zeros_like(reached)
    ignored[reached] = truth.ignore[matched[reached]]
    right = _first_of_each(matched, reached & ~ignored)

    per_class_07: dict[str, float | None] = {}
    per_class_10: dict[str, float | None] = {}
    for label, name in enumerate(truth.label_map.names):
        num_objects = int(np.count_nonzero((truth.labels == label) & ~truth.ignore))
        if not num_objects:
            per_class_07[name] = per_class_10[name] = None
            continue
        curve = _curve(right[(detections.labels == label) & ~ignored], num_objects)
        per_class_07[name] = _eleven_point_mean(curve)
        per_class_10[name] = _area_under(curve)
    return VocAP(
        VOC07=_mean_over_classes(per_class_07),
        VOC10=_mean_over_classes(per_class_10),
        per_class_07=per_class_07,
        per_class_10=per_class_10,
    )


def _best_first(detections: ScoredBoxes, num_images: int) -> ScoredBoxes:
    image = detections.image
    order = np.lexsort((image, -detections.scores))
    order = order[(image[order] >= 0) & (image[order] < num_images)]
    return detections[order]


def _most_overlapped(
    truth: Objects, detections: ScoredBoxes
) -> tuple[Int64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Returns the object that each detection overlaps most, and their IoU.

    Of equally overlapped objects the first is returned. For a detection whose image has no object
    of its class, the result is `NO_OBJECT` and zero.
    """
    num_classes = len(truth.label_map)
    pairs = pair_up(
        truth.image * num_classes + truth.labels,
        detections.image * num_classes + detections.labels,
    )
    overlaps = iou(detections.boxes[pairs.detection], truth.boxes[pairs.object])
    return pairs.most_overlapped(overlaps, len(detections))


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
    """Returns VOC2007's mean of the best precisions at recalls of at least 0, 0.1, ... 1."""
    recalls = np.arange(11) / 10
    best = [curve.precision[curve.recall >= recall].max(initial=0) for recall in recalls]
    return float(np.mean(best))


def _area_under(curve: _Curve) -> float:
    """Returns VOC2010's area under the curve, with the precision made monotonically decreasing."""
    steps = np.diff(curve.recall, prepend=0)
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float(steps @ envelope)


def _mean_over_classes(per_class: dict[str, float | None]) -> float | None:
    measured = [value for value in per_class.values() if value is not None]
    return float(np.mean(measured)) if measured else None
