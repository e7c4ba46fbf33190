"""The errors of detections by kind, and what fixing each kind would gain.

Source: Bolya et al. 2020, TIDE (arXiv:2008.08115). A detection that is not right is, in this order:

- location: overlaps an object of its class by 0.1 to 0.5;
- class: overlaps an object of another class by at least 0.5;
- duplicate: overlaps an object of its class by at least 0.5 that a better detection has found;
- background: overlaps no object by more than 0.1;
- both: anything else, wrong in class and location.

An object is missed if no detection found it, and no location or class error would have. As in TIDE,
detections on crowds count among the errors, though not in the average precision.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_matches import Matches
from mbv2det.metrics.overlaps import NO_OBJECT, iou, pair_up
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.report.intervals import mean_of_defined
from mbv2det.report.ranking import precision_at_recalls

KINDS = ("class", "location", "both", "duplicate", "background")
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND = range(len(KINDS))
MISSED = "missed"
NO_ERROR = -1
"""Kind of a detection that is right, or that does not count."""

FOUND_IOU = 0.5
_BACKGROUND_IOU = 0.1
_ROWS_AT_ONCE = 50_000  # detections, whose pairs with objects are in memory together


@dataclass(frozen=True)
class ErrorSplit:
    """The errors of detections (N) and objects (M).

    Attributes:
        kinds: Kind of error of each detection, a position in `KINDS`, or `NO_ERROR`.
        objects: Row of the object that a class or location error meant, or `NO_OBJECT`.
        missed: True for objects that nothing found and no class or location error would have.
        unfound: True for objects that no detection found: the missed ones and more.
    """

    kinds: Int64[np.ndarray, " N"]
    objects: Int64[np.ndarray, " N"]
    missed: Bool[np.ndarray, " M"]
    unfound: Bool[np.ndarray, " M"]


def split_errors(truth: Objects, detections: ScoredBoxes, matches: Matches) -> ErrorSplit:
    """Returns the kind of every error at an IoU of 0.5.

    Args:
        truth: Ground truth.
        detections: Detections.
        matches: Their matches; the first threshold must be 0.5.
    """
    assert matches.thresholds[0] == FOUND_IOU
    right = matches.right[0]
    used = np.zeros(len(truth), bool)
    used[matches.objects[0][right]] = True
    kinds = np.full(len(detections), NO_ERROR, np.int64)
    objects = np.full(len(detections), NO_OBJECT, np.int64)
    wrong = np.flatnonzero(~right & matches.counted)
    for start in range(0, len(wrong), _ROWS_AT_ONCE):
        rows = wrong[start : start + _ROWS_AT_ONCE]
        kinds[rows], objects[rows] = _kinds_of(truth, detections, rows, used)
    would_be_found = np.zeros(len(truth), bool)
    would_be_found[objects[objects != NO_OBJECT]] = True
    unfound = ~truth.ignore & ~used
    return ErrorSplit(kinds, objects, unfound & ~would_be_found, unfound)


def _kinds_of(
    truth: Objects,
    detections: ScoredBoxes,
    rows: Int64[np.ndarray, " n"],
    used: Bool[np.ndarray, " M"],
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Returns the kind of some wrong detections, and the object that each meant."""
    pairs = pair_up(truth.image, detections.image[rows])
    pairs = pairs.where(~truth.ignore[pairs.object])
    overlaps = iou(detections.boxes[rows[pairs.detection]], truth.boxes[pairs.object])
    same = detections.labels[rows[pairs.detection]] == truth.labels[pairs.object]
    of_class, own = pairs.where(same).most_overlapped(overlaps[same], len(rows))
    of_other, other = pairs.where(~same).most_overlapped(overlaps[~same], len(rows))
    found = same & used[pairs.object]
    _, taken = pairs.where(found).most_overlapped(overlaps[found], len(rows))
    cases = [
        (own >= _BACKGROUND_IOU) & (own <= FOUND_IOU),
        other >= FOUND_IOU,
        taken >= FOUND_IOU,
        np.maximum(own, other) <= _BACKGROUND_IOU,
    ]
    kinds = np.select(cases, [LOCATION, CLASS, DUPLICATE, BACKGROUND], BOTH)
    objects = np.where(kinds == LOCATION, of_class, NO_OBJECT)
    return kinds, np.where(kinds == CLASS, of_other, objects)


@dataclass(frozen=True)
class Gains:
    """Average precision at an IoU of 0.5, by class (K), and after fixing one kind of error.

    Attributes:
        before: Average precision; NaN for a class without objects.
        after: Average precision after fixing each kind of `KINDS`, `missed`, all wrong detections
            (`wrong`) and all objects that were not found (`unfound`); NaN for a class that then has
            neither objects nor detections.
    """

    before: Float64[np.ndarray, " K"]
    after: dict[str, Float64[np.ndarray, " K"]]

    def mean(self, kind: str) -> float:
        """Returns the gain in average precision over all classes; 0 if it is none or a loss."""
        gain = mean_of_defined(self.after[kind]) - mean_of_defined(self.before)
        return gain if gain > 0 else 0.0


@dataclass(frozen=True)
class _Points:
    """Detections that count, and the number of objects of each class."""

    image: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"]
    labels: Int64[np.ndarray, " N"]
    right: Bool[np.ndarray, " N"]
    num_objects: Int64[np.ndarray, " K"]

    def average_precision(self) -> Float64[np.ndarray, " K"]:
        order = np.lexsort((self.image, -self.scores))
        labels, right = self.labels[order], self.right[order]
        result = np.zeros(len(self.num_objects))
        for label, count in enumerate(self.num_objects):
            of_class = right[labels == label]
            if count:
                result[label] = precision_at_recalls(of_class, int(count)).mean()
            elif not len(of_class):
                result[label] = np.nan
        return result


def gains(truth: Objects, detections: ScoredBoxes, matches: Matches, split: ErrorSplit) -> Gains:
    """Returns what fixing each kind of error would gain.

    Class and location errors are fixed by making the best one of each object that was not found
    right and removing the others; other wrong detections by removing them; missed objects by not
    counting them.
    """
    num_classes = len(truth.label_map)
    counts = np.bincount(truth.labels[~truth.ignore], minlength=num_classes)
    counted, right = matches.counted & ~matches.ignored[0], matches.right[0]
    fixed = _fixed(detections, split)
    labels = detections.labels.copy()
    labels[fixed] = truth.labels[split.objects[fixed]]

    def points(
        kept: Bool[np.ndarray, " N"], gained: Bool[np.ndarray, " N"], own: Int64[np.ndarray, " N"]
    ) -> _Points:
        rows = np.flatnonzero(kept | gained)
        image, scores = detections.image[rows], detections.scores[rows]
        return _Points(image, scores, own[rows], (right | gained)[rows], counts)

    def after(kept: Bool[np.ndarray, " N"], gained: Bool[np.ndarray, " N"]) -> Any:
        own = np.where(gained, labels, detections.labels)
        return points(kept, gained, own).average_precision()

    nothing = np.zeros(len(detections), bool)
    results = {
        kind: after(counted & (split.kinds != number), fixed & (split.kinds == number))
        for number, kind in enumerate(KINDS)
    }
    results["wrong"] = after(counted & right, nothing)
    base = points(counted, nothing, detections.labels)
    for name, gone in ((MISSED, split.missed), ("unfound", split.unfound)):
        fewer = counts - np.bincount(truth.labels[gone], minlength=num_classes)
        results[name] = replace(base, num_objects=fewer).average_precision()
    measured = counts > 0
    results = {name: np.where(measured, values, np.nan) for name, values in results.items()}
    return Gains(np.where(measured, base.average_precision(), np.nan), results)


def _fixed(detections: ScoredBoxes, split: ErrorSplit) -> Bool[np.ndarray, " N"]:
    """Marks the best class or location error of each object that was not found."""
    rows = np.flatnonzero(split.objects != NO_OBJECT)
    rows = rows[split.unfound[split.objects[rows]]]
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    _, first = np.unique(split.objects[rows], return_index=True)
    fixed = np.zeros(len(detections), bool)
    fixed[rows[first]] = True
    return fixed
