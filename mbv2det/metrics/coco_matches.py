"""COCO's matches: which object each detection was counted for, at every IoU threshold.

They come from the library that computes COCO's numbers, so that everything that is derived from
them agrees with the average precision.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_ap import coco_evaluator, evaluate
from mbv2det.metrics.overlaps import NO_OBJECT, intersection, iou, pair_up
from mbv2det.metrics.scored_boxes import ScoredBoxes

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's IoU thresholds."""

_MOST = 100  # detections of a class in an image that count
_ROUNDING = 1e-6  # between the library's overlaps and ours


@dataclass(frozen=True)
class Matches:
    """The matches of detections (N) with objects (M) at several IoU thresholds (T).

    Attributes:
        thresholds: Smallest IoU of a match.
        objects: Row of the object that each detection is matched with, or `NO_OBJECT`.
        ignored: True for detections matched with a crowd or a difficult object: neither right nor
            wrong.
        counted: True for the 100 best detections of each class in each image; others do not count.
    """

    thresholds: Float64[np.ndarray, " T"]
    objects: Int64[np.ndarray, "T N"]
    ignored: Bool[np.ndarray, "T N"]
    counted: Bool[np.ndarray, " N"]

    @property
    def right(self) -> Bool[np.ndarray, "T N"]:
        """True for detections matched with an object that is to be found."""
        return (self.objects != NO_OBJECT) & ~self.ignored


def coco_matches(
    truth: Objects,
    detections: ScoredBoxes,
    thresholds: Float64[np.ndarray, " T"] = IOU_THRESHOLDS,
) -> Matches:
    """Returns the matches from which COCO's average precision is computed.

    Args:
        truth: Ground truth of all images that are evaluated.
        detections: Detections in the images 0..num_images-1.
        thresholds: Smallest IoU of a match.
    """
    objects = np.full((len(thresholds), len(detections)), NO_OBJECT, np.int64)
    counted = _best_of_group(detections)
    overlaps = np.where(counted, _largest_overlaps(truth, detections), 0.0)
    for row, threshold in enumerate(thresholds):
        # Only these can be matched; the library takes far longer for all of them.
        candidates = np.flatnonzero(overlaps >= threshold - _ROUNDING)
        if len(candidates):
            found, partners = _match(truth, detections[candidates], float(threshold))
            objects[row, candidates[found]] = partners
    # The extra False at the end is that of NO_OBJECT.
    ignored = np.append(truth.ignore, False)[objects]
    return Matches(thresholds, objects, ignored, counted)


def _match(
    truth: Objects, detections: ScoredBoxes, threshold: float
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Returns the rows of the matched detections, and those of their objects."""
    evaluator = coco_evaluator(truth, detections)
    evaluator.params.areaRng = evaluator.params.areaRng[:1]  # any size
    evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
    evaluator.params.maxDets = [_MOST]
    # One threshold at a time: the library lists the matches of all thresholds together.
    evaluator.params.iouThrs = np.array([threshold])
    ids = [pair.split("_") for pair in evaluate(evaluator)["matched"]]
    found, partners = np.array(ids, np.int64).reshape(-1, 2).T - 1
    return found, partners


def _largest_overlaps(truth: Objects, detections: ScoredBoxes) -> Float64[np.ndarray, " N"]:
    """Returns the largest overlap of each detection with an object of its class, as COCO has it.

    For a crowd it is the share of the detection that lies inside.
    """
    num_classes = len(truth.label_map)
    pairs = pair_up(
        truth.image * num_classes + truth.labels,
        detections.image * num_classes + detections.labels,
    )
    boxes, others = detections.boxes[pairs.detection], truth.boxes[pairs.object]
    inside = intersection(boxes, others) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-12)
    _, largest = pairs.most_overlapped(
        np.where(truth.ignore[pairs.object], inside, iou(boxes, others)), len(detections)
    )
    return largest


def _best_of_group(detections: ScoredBoxes) -> Bool[np.ndarray, " N"]:
    """Marks the best detections of each class in each image; of equal ones the first."""
    order = np.lexsort((-detections.scores, detections.labels, detections.image))
    group = np.stack([detections.image[order], detections.labels[order]])
    starts = np.flatnonzero(np.any(np.diff(group, axis=1, prepend=-1), axis=0))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    best = np.zeros(len(order), bool)
    best[order] = rank < _MOST
    return best
