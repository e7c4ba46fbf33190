"""Precision, recall and F1 of each class against the lowest score that is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mbv2det.report.ranking import ClassRanking, precision_at_recalls

SCORES = np.linspace(0, 1, 101)
"""Lowest accepted scores of the curves."""


@dataclass(frozen=True)
class ScoreCurves:
    """Curves of every class (K) at an IoU of 0.5; NaN for a class without objects.

    Attributes:
        precision: Share of right ones among the detections at each of `SCORES`; 1 without any.
        recall: Share of the objects that are found.
        f1: Harmonic mean of both.
        precision_at_recalls: Precision at COCO's 101 recalls.
        best_score: Lowest accepted score at which F1 is best, among the scores of the class.
        best_f1: F1 at that score.
    """

    precision: Float64[np.ndarray, "K 101"]
    recall: Float64[np.ndarray, "K 101"]
    f1: Float64[np.ndarray, "K 101"]
    precision_at_recalls: Float64[np.ndarray, "K 101"]
    best_score: Float64[np.ndarray, " K"]
    best_f1: Float64[np.ndarray, " K"]

    @property
    def common_score(self) -> float:
        """The lowest accepted score at which the mean F1 of all classes is best."""
        measured = ~np.isnan(self.f1).any(axis=1)
        return float(SCORES[self.f1[measured].mean(axis=0).argmax()]) if measured.any() else 0.5


def score_curves(rankings: Sequence[ClassRanking]) -> ScoreCurves:
    """Returns the curves of every class, from its first IoU threshold."""
    shape = (len(rankings), len(SCORES))
    columns = [np.full(shape, np.nan) for _ in range(4)]
    best = np.full((2, len(rankings)), np.nan)
    for label, ranking in enumerate(rankings):
        num_objects = len(ranking.object_image)
        if not num_objects:
            continue
        counted = ~ranking.ignored[0]
        right, scores = ranking.right[0][counted], ranking.scores[counted]
        found = np.concatenate([[0], np.cumsum(right)])
        accepted = np.searchsorted(-scores, -SCORES, side="right")
        precision = found[accepted] / np.maximum(accepted, 1)
        precision[accepted == 0] = 1.0
        # 2 right / (detections + objects) is the harmonic mean of precision and recall.
        f1 = 2 * found[accepted] / (accepted + num_objects)
        values = (precision, found[accepted] / num_objects, f1)
        for column, value in zip(columns, values, strict=False):
            column[label] = value
        columns[3][label] = precision_at_recalls(right, num_objects)
        best[:, label] = _best(found, scores, num_objects)
    return ScoreCurves(*columns, *best)


def _best(
    found: np.ndarray, scores: Float64[np.ndarray, " N"], num_objects: int
) -> tuple[float, float]:
    """Returns the score at which F1 is best, and F1; (NaN, 0) without detections."""
    if not len(scores):
        return np.nan, 0.0
    f1 = 2 * found[1:] / (np.arange(1, len(scores) + 1) + num_objects)
    # All detections of one score are accepted together: only the last of them can be a threshold.
    f1[:-1][scores[:-1] == scores[1:]] = 0.0
    return float(scores[f1.argmax()]), float(f1.max())
