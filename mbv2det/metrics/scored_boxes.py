"""Detections of a whole split, which detection metrics compare with its `Objects`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True)
class ScoredBoxes:
    """The detections in the images of a split; rows in any order.

    The order matters only for boxes of one image with equal scores: the first ranks higher.

    Attributes:
        image: Index of the image of each detection.
        boxes: xyxy boxes in pixels of the original image.
        scores: Scores, comparable across images and classes.
        labels: Class of each detection, 0..K-1.
    """

    image: Int64[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 4"]
    scores: Float64[np.ndarray, " N"]
    labels: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Int64[np.ndarray, " n"] | Bool[np.ndarray, " N"]) -> "ScoredBoxes":
        """Returns some of the rows."""
        return ScoredBoxes(self.image[rows], self.boxes[rows], self.scores[rows], self.labels[rows])
