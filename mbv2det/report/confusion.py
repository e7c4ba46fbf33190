"""The confusion matrix of detections, with a row and a column for the background."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_matches import Matches
from mbv2det.metrics.overlaps import NO_OBJECT, iou, pair_up
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.report.error_split import FOUND_IOU


def confusion(
    truth: Objects, detections: ScoredBoxes, matches: Matches, min_score: float
) -> Int64[np.ndarray, "L L"]:
    """Counts objects by their class (row) and the class that was detected there (column).

    Right detections are those of COCO's matches. The others are paired, best score first, with the
    unfound object of another class that they overlap most, by at least 0.5. Detections that remain
    are counted in the last row, as background; objects that remain in the last column. Every object
    and every detection counts once; detections on crowds do not count.

    Args:
        truth: Ground truth.
        detections: Detections.
        matches: Their matches; the first threshold is used.
        min_score: Lowest score of the detections that count.
    """
    background = len(truth.label_map)
    counted = matches.counted & ~matches.ignored[0] & (detections.scores >= min_score)
    right = matches.right[0] & counted
    partner = np.where(right, matches.objects[0], NO_OBJECT)
    found = np.zeros(len(truth), bool)
    found[partner[right]] = True
    _pair_with_other_classes(truth, detections, partner, counted & ~right, found)
    rows = np.append(truth.labels, background)[partner[counted]]
    matrix = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(matrix, (rows, detections.labels[counted]), 1)
    missed = truth.labels[~found & ~truth.ignore]
    np.add.at(matrix, (missed, np.full(len(missed), background)), 1)
    return matrix


def _pair_with_other_classes(
    truth: Objects,
    detections: ScoredBoxes,
    partner: Int64[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    found: Bool[np.ndarray, " M"],
) -> None:
    """Fills in the partner of wrong detections, and marks the objects as found."""
    rows = np.flatnonzero(wrong)
    pairs = pair_up(truth.image, detections.image[rows])
    pairs = pairs.where(~truth.ignore[pairs.object] & ~found[pairs.object])
    overlaps = iou(detections.boxes[rows[pairs.detection]], truth.boxes[pairs.object])
    pairs, overlaps = pairs.where(overlaps >= FOUND_IOU), overlaps[overlaps >= FOUND_IOU]
    scores = detections.scores[rows[pairs.detection]]
    for pair in np.lexsort((-overlaps, pairs.detection, -scores)):
        row, target = rows[pairs.detection[pair]], pairs.object[pair]
        if partner[row] == NO_OBJECT and not found[target]:
            partner[row] = target
            found[target] = True


def shares(matrix: Int64[np.ndarray, "L L"], axis: int) -> Float64[np.ndarray, "L L"]:
    """Returns a confusion matrix whose rows (axis 1) or columns (axis 0) sum up to 1, or to 0."""
    sums = matrix.sum(axis=axis, keepdims=True)
    return np.divide(matrix, sums, out=np.zeros(matrix.shape), where=sums > 0)
