"""Everything that a report says about the detections of one model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_matches import Matches, coco_matches
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.report.calibration import Calibration, calibrate
from mbv2det.report.confusion import confusion
from mbv2det.report.error_split import ErrorSplit, Gains, gains, split_errors
from mbv2det.report.intervals import image_weights, mean_of_defined, resample
from mbv2det.report.object_groups import ObjectGroups, group_objects, images_by_number
from mbv2det.report.ranking import ClassRanking, average_precision, rank
from mbv2det.report.score_curves import ScoreCurves, score_curves
from mbv2det.report.worst import Errors, find_errors, found_objects

AVERAGES = ("AP", "AP50", "AP75")
"""Averages that have an interval; the intervals of the classes' AP follow."""
_IOU_75 = 5

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class DetectionAnalysis:
    """The detections of one model on a split, and what is wrong with them.

    Attributes:
        images: Indices of the measured images.
        truth: Their objects (M).
        detections: Detections (N).
        matches: COCO's matches.
        samples: `AVERAGES` and the AP of every class (K), for each of B draws of images; models
            that were measured on the same images have the same draws.
        values: The same for the images themselves.
        curves: Precision, recall and F1 against the score.
        min_score: The common lowest score with the best F1; the fields below are of it.
        errors: Wrong detections and missed objects.
        found: True for objects that were found.
        confusion: Confusion matrix; the last row and column are the background.
        split: Kinds of all errors, of any score.
        gains: Gain in AP50 of fixing each kind.
        groups: Size and neighbours of each object.
        by_number: AP of the images with each number of objects; NaN without such images.
        calibration: Calibration of all scores.
        accepted_calibration: Calibration of the scores from `min_score` on.
    """

    images: Int64[np.ndarray, " J"]
    truth: Objects
    detections: ScoredBoxes
    matches: Matches
    samples: Float64[np.ndarray, "B V"]
    values: Float64[np.ndarray, " V"]
    curves: ScoreCurves
    min_score: float
    errors: Errors
    found: Bool[np.ndarray, " M"]
    confusion: Int64[np.ndarray, "L L"]
    split: ErrorSplit
    gains: Gains
    groups: ObjectGroups
    by_number: list[float]
    calibration: Calibration
    accepted_calibration: Calibration


def analyse_detections(
    images: Int64[np.ndarray, " J"],
    truth: Objects,
    detections: ScoredBoxes,
    *,
    times: int = 300,
    progress: Progress = lambda draws, _: draws,
) -> DetectionAnalysis:
    """Analyses the detections of a model.

    Args:
        images: Indices of the measured images.
        truth: Their objects.
        detections: Detections in these images.
        times: Number of draws of images for the intervals.
        progress: Wraps the draws to show a progress bar, such as `rich.progress.track`.
    """
    matches = coco_matches(truth, detections)
    rankings = rank(truth, detections, matches)
    curves = score_curves(rankings)
    score = curves.common_score
    split = split_errors(truth, detections, matches)
    counted = matches.counted & ~matches.ignored[0]
    accepted = counted & (detections.scores >= score)
    draws = list(image_weights(images, truth.num_images, times))
    return DetectionAnalysis(
        images=images,
        truth=truth,
        detections=detections,
        matches=matches,
        samples=resample(
            lambda weights: _averages(rankings, weights), progress(draws, "Intervals of AP")
        ),
        values=_averages(rankings, np.ones(truth.num_images)),
        curves=curves,
        min_score=score,
        errors=find_errors(truth, detections, matches, score),
        found=found_objects(truth, detections, matches, score),
        confusion=confusion(truth, detections, matches, score),
        split=split,
        gains=gains(truth, detections, matches, split),
        groups=group_objects(truth),
        by_number=[_averages(rankings, weights)[0] for weights in images_by_number(truth)],
        calibration=calibrate(detections.scores[counted], matches.right[0][counted]),
        accepted_calibration=calibrate(detections.scores[accepted], matches.right[0][accepted]),
    )


def _averages(
    rankings: list[ClassRanking], weights: Float64[np.ndarray, " I"]
) -> Float64[np.ndarray, " V"]:
    """Returns `AVERAGES` and the AP of every class; NaN without objects."""
    by_class = average_precision(rankings, weights)
    means = [mean_of_defined(by_class[:, part]) for part in (slice(None), 0, _IOU_75)]
    return np.concatenate([means, by_class.mean(axis=1)])
