"""The errors that a reader should see first, and the images that have most of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_matches import Matches
from mbv2det.metrics.scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class Errors:
    """Errors above a score.

    Attributes:
        wrong: Rows of the wrong detections, highest score first.
        missed: Rows of the objects that were not found, largest first.
        by_image: Number of errors of each image of the split.
    """

    wrong: Int64[np.ndarray, " W"]
    missed: Int64[np.ndarray, " U"]
    by_image: Int64[np.ndarray, " I"]

    @property
    def worst_images(self) -> Int64[np.ndarray, " J"]:
        """Indices of the images with an error, most errors first."""
        order = np.argsort(-self.by_image, kind="stable")
        return order[self.by_image[order] > 0]


def find_errors(
    truth: Objects, detections: ScoredBoxes, matches: Matches, min_score: float
) -> Errors:
    """Finds wrong detections and missed objects at an IoU of 0.5.

    Args:
        truth: Ground truth.
        detections: Detections.
        matches: Their matches; the first threshold is used.
        min_score: Lowest score of the detections that count.
    """
    counted = matches.counted & ~matches.ignored[0] & (detections.scores >= min_score)
    wrong = np.flatnonzero(counted & ~matches.right[0])
    wrong = wrong[np.argsort(-detections.scores[wrong], kind="stable")]
    missed = np.flatnonzero(~truth.ignore & ~found_objects(truth, detections, matches, min_score))
    missed = missed[np.argsort(-truth.areas[missed], kind="stable")]
    images = np.concatenate([detections.image[wrong], truth.image[missed]])
    return Errors(wrong, missed, np.bincount(images, minlength=truth.num_images))


def found_objects(
    truth: Objects, detections: ScoredBoxes, matches: Matches, min_score: float
) -> Bool[np.ndarray, " M"]:
    """Marks the objects that a detection of at least a score found, at an IoU of 0.5."""
    right = matches.right[0] & (detections.scores >= min_score)
    found = np.zeros(len(truth), bool)
    found[matches.objects[0][right]] = True
    return found
