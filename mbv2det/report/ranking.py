"""Detections of one class, best score first, and the average precision of weighted images.

With every weight 1 the average precision is COCO's. Other weights give that of images drawn with
replacement (how often each was drawn), or of some of the images (1 or 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_matches import Matches
from mbv2det.metrics.scored_boxes import ScoredBoxes

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO averages the precision."""


@dataclass(frozen=True)
class ClassRanking:
    """The counted detections (N) of one class, best score first, and its objects (M).

    Attributes:
        rows: Row of each detection in `ScoredBoxes`.
        image: Index of the image of each detection.
        scores: Score of each detection.
        right: True for right detections, at each IoU threshold.
        ignored: True for detections that are neither right nor wrong, at each IoU threshold.
        object_image: Index of the image of each object that is to be found.
    """

    rows: Int64[np.ndarray, " N"]
    image: Int64[np.ndarray, " N"]
    scores: Float64[np.ndarray, " N"]
    right: Bool[np.ndarray, "T N"]
    ignored: Bool[np.ndarray, "T N"]
    object_image: Int64[np.ndarray, " M"]


def rank(truth: Objects, detections: ScoredBoxes, matches: Matches) -> list[ClassRanking]:
    """Returns the ranking of every class; equal scores are ordered by the index of the image."""
    order = np.lexsort((detections.image, -detections.scores))
    order = order[matches.counted[order]]
    labels, right, image = detections.labels[order], matches.right, truth.image
    rankings = []
    for label in range(len(truth.label_map)):
        rows = order[labels == label]
        rankings.append(
            ClassRanking(
                rows=rows,
                image=detections.image[rows],
                scores=detections.scores[rows],
                right=right[:, rows],
                ignored=matches.ignored[:, rows],
                object_image=image[(truth.labels == label) & ~truth.ignore],
            )
        )
    return rankings


def average_precision(
    rankings: Sequence[ClassRanking], weights: Float64[np.ndarray, " I"]
) -> Float64[np.ndarray, "K T"]:
    """Returns the average precision of each class at each IoU threshold.

    Args:
        rankings: Ranking of each class.
        weights: Weight of each image.

    Returns:
        Values in 0..1, NaN for a class without objects.
    """
    return np.stack([_class_average_precision(ranking, weights) for ranking in rankings])


def _class_average_precision(
    ranking: ClassRanking, weights: Float64[np.ndarray, " I"]
) -> Float64[np.ndarray, " T"]:
    num_objects = weights[ranking.object_image].sum()
    if num_objects == 0:
        return np.full(len(ranking.right), np.nan)
    weight = weights[ranking.image]
    seen = np.cumsum(weight)
    result = np.zeros(len(ranking.right))
    for threshold, (right, ignored) in enumerate(zip(ranking.right, ranking.ignored, strict=True)):
        rows = np.flatnonzero(right & (weight > 0))
        counted = seen[rows]
        if ignored.any():
            counted = counted - np.cumsum(weight * ignored)[rows]
        found = np.cumsum(weight[rows])
        result[threshold] = interpolated(found / num_objects, found / counted).mean()
    return result


def interpolated(
    recall: Float64[np.ndarray, " R"], precision: Float64[np.ndarray, " R"]
) -> Float64[np.ndarray, " 101"]:
    """Returns the precision at COCO's 101 recalls: the best at that recall or a higher one.

    Args:
        recall: Recall after each right detection, best score first.
        precision: Precision after each right detection.
    """
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(recall, RECALLS, side="left")]


def precision_at_recalls(
    right: Bool[np.ndarray, " N"], num_objects: int
) -> Float64[np.ndarray, " 101"]:
    """Returns the precision of detections of one class at COCO's 101 recalls.

    Args:
        right: Whether each detection is right, best score first.
        num_objects: Number of objects to be found; at least one.
    """
    rows = np.flatnonzero(right)
    found = np.arange(1, len(rows) + 1)
    return interpolated(found / num_objects, found / (rows + 1))
