"""Calibration: whether a score is the share of detections that are right."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Detections in ten ranges of scores of equal width; NaN in a range without detections.

    Attributes:
        counts: Number of detections.
        scores: Their mean score.
        right: Share of them that are right.
    """

    counts: Int64[np.ndarray, " 10"]
    scores: Float64[np.ndarray, " 10"]
    right: Float64[np.ndarray, " 10"]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of score and share of right ones."""
        filled = self.counts > 0
        if not filled.any():
            return float("nan")
        distance = np.abs(self.scores - self.right)[filled]
        return float(np.average(distance, weights=self.counts[filled]))

    @property
    def bias(self) -> float:
        """The mean of score minus share of right ones: above 0 for scores that are too high."""
        filled = self.counts > 0
        if not filled.any():
            return float("nan")
        return float(np.average((self.scores - self.right)[filled], weights=self.counts[filled]))


def calibrate(scores: Float64[np.ndarray, " N"], right: Bool[np.ndarray, " N"]) -> Calibration:
    """Sorts detections into ranges of scores.

    Args:
        scores: Scores in 0..1.
        right: Whether each detection is right.

    Source: Guo et al. 2017 (arXiv:1706.04599), sec. 2, for detections as in Kueppers et al. 2020
        (arXiv:2004.13546): what is right is a detection, not a class.
    """
    bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bins, weights=values, minlength=BINS)
        return np.divide(sums, counts, out=np.full(BINS, np.nan), where=counts > 0)

    return Calibration(counts, mean(scores), mean(right.astype(np.float64)))
