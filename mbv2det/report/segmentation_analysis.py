"""Everything that a report says about the masks of one model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mbv2det.report.detection_analysis import Progress
from mbv2det.report.intervals import image_weights, mean_of_defined, resample

AVERAGES = ("mIoU", "pixel_accuracy")
"""Averages that have an interval; the intervals of the classes' IoU follow."""


@dataclass(frozen=True)
class SegmentationAnalysis:
    """The masks of one model on a split, and what is wrong with them.

    Attributes:
        images: Indices of the measured images (J).
        confusion: Pixels of all images by annotated label (row) and predicted label (column).
        samples: `AVERAGES` and the IoU of every label (L), for each of B draws of images.
        values: The same for the images themselves.
        wrong: Share of wrong pixels in each image.
        wrong_of_label: Share of the pixels of each image that are wrongly this label, or wrongly
            another.
    """

    images: Int64[np.ndarray, " J"]
    confusion: Int64[np.ndarray, "L L"]
    samples: Float64[np.ndarray, "B V"]
    values: Float64[np.ndarray, " V"]
    wrong: Float64[np.ndarray, " J"]
    wrong_of_label: Float64[np.ndarray, "J L"]


def analyse_masks(
    images: Int64[np.ndarray, " J"],
    confusion: Int64[np.ndarray, "J L L"],
    *,
    times: int = 1000,
    progress: Progress = lambda draws, _: draws,
) -> SegmentationAnalysis:
    """Analyses the pixel counts of a model.

    Args:
        images: Index of each measured image.
        confusion: Pixels of each image by annotated label (row) and predicted label (column).
        times: Number of draws of images for the intervals.
        progress: Wraps the draws to show a progress bar.
    """
    right = np.diagonal(confusion, axis1=1, axis2=2).astype(np.float64)
    annotated, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    counts = np.stack([right, annotated, predicted], axis=1)
    positions = np.arange(len(images))
    draws: Iterable[Any] = list(image_weights(positions, len(images), times))
    pixels = np.maximum(annotated.sum(axis=1), 1)
    of_label = annotated + predicted - 2 * right
    return SegmentationAnalysis(
        images=images,
        confusion=confusion.sum(axis=0),
        samples=resample(
            lambda weights: _averages(np.tensordot(weights, counts, axes=1)),
            progress(draws, "Intervals of mIoU"),
        ),
        values=_averages(counts.sum(axis=0)),
        wrong=1 - right.sum(axis=1) / pixels,
        wrong_of_label=of_label / pixels[:, None],
    )


def _averages(counts: Float64[np.ndarray, "3 L"]) -> Float64[np.ndarray, " V"]:
    """Returns `AVERAGES` and the IoU of every label from right, annotated and predicted pixels."""
    right, annotated, predicted = counts
    union = annotated + predicted - right
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = right.sum() / annotated.sum()
        by_label = np.where(union > 0, right / union, np.nan)
    return np.concatenate([[mean_of_defined(by_label), accuracy], by_label])
