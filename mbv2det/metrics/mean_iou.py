"""The segmentation metric of a whole split, collected batch by batch and over all processes.

Notable choices:

- Every number comes from pixel counts of the whole split, as in VOC's development kit. The mean of
  the IoUs of single images, which some libraries call mean IoU, is another number.
- The states are counts of fixed shape, which are summed over the processes.
- The boundaries of all classes are computed at once: a pixel is near the contour of its region
  where the labels around it are not all the same.
"""

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torchmetrics import Metric

from mbv2det.structures import IGNORE_INDEX, SegmentationMap

_BOUNDARY_WIDTH = 0.02  # of the image diagonal


class SegmentationScores(TypedDict):
    """Fractions in 0..1, None where there is nothing to measure, and the number of images."""

    mIoU: float | None
    pixel_accuracy: float | None
    boundary_IoU: float | None
    per_class: dict[str, float | None]
    images: int


class MeanIoU(Metric):
    """Mean over the classes of the intersection over union, against the original masks of a split.

    Over all pixels that are not ignored, the IoU of a class is right / (annotated + predicted -
    right). A class that is predicted somewhere but annotated nowhere has an IoU of 0, which counts
    in the mean, as in VOC's kit. A class that is neither predicted nor annotated has None and is
    left out of the mean; VOC's kit would give NaN.

    The boundary IoU of a class counts only pixels near the contour of their region, separately in
    the annotation and in the prediction: within 2% of the image diagonal, at least one pixel. The
    image border and ignored pixels belong to the contour, in both maps.

    The order of the images and the number of processes do not change the result. An image that is
    added twice counts twice.

    Args:
        names: Names of the labels, background included.
        kwargs: Arguments of `torchmetrics.Metric`.

    Source: VOCevalseg.m of the VOC2012 development kit. Cheng et al. 2021 (arXiv:2103.16562) and
        their mask_to_boundary; differs: masks are those of classes rather than objects, and pixels
        are summed over the split; ignored pixels are removed from both maps before the contours
        are computed, so that a perfect prediction scores 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor  # (L, L) int64: pixels by annotated label (row) and predicted label (column)
    boundary_intersection: Tensor  # (L,) int64
    boundary_union: Tensor  # (L,) int64
    images: Tensor  # () int64: number of images with a mask

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        size = len(self.names)
        for state, shape in (
            ("confusion", (size, size)),
            ("boundary_intersection", (size,)),
            ("boundary_union", (size,)),
            ("images", ()),
        ):
            self.add_state(state, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        maps: Sequence[SegmentationMap],
        masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
    ) -> None:
        """Counts the pixels of some images.

        Args:
            maps: Predicted map of each image, on any device.
            masks: Annotated mask of each image, in the frame of the original file; None for an
                image without a mask, which is left out.

        Raises:
            ValueError: If a map and its mask differ in size, if either holds a label outside
                0..L-1, or if there are not as many masks as maps.
        """
        for position, (predicted, mask) in enumerate(zip(maps, masks, strict=True)):
            if mask is None:
                continue
            if predicted.labels.shape != mask.shape:
                raise ValueError(
                    f"expected a map of the size of the mask of image {position} in the batch, "
                    f"{mask.shape}, but got {tuple(predicted.labels.shape)}"
                )
            prediction = predicted.labels.cpu().numpy()
            self._check_labels("mask", position, mask[mask != IGNORE_INDEX])
            self._check_labels("prediction", position, prediction)
            self._count(mask, prediction)

    def _check_labels(self, source: str, position: int, labels: UInt8[np.ndarray, "..."]) -> None:
        highest = int(labels.max(initial=0))
        if highest >= len(self.names):
            raise ValueError(
                f"expected labels in 0..{len(self.names) - 1} in the {source} of image {position} "
                f"in the batch, but got {highest}"
            )

    def _count(self, mask: UInt8[np.ndarray, "H W"], prediction: UInt8[np.ndarray, "H W"]) -> None:
        counted = mask != IGNORE_INDEX
        width = max(1, round(_BOUNDARY_WIDTH * math.hypot(*mask.shape)))
        both = (mask, np.where(counted, prediction, np.uint8(IGNORE_INDEX)))
        counts = torch.from_numpy(
            _joint_counts(
                near=[near_contour(labels, width)[counted] for labels in both],
                labels=[labels[counted] for labels in both],
                num_labels=len(self.names),
            )
        ).to(self.device)
        annotated, predicted = counts[1].sum(dim=(0, 2)), counts[:, 1].sum(dim=(0, 1))
        intersection = counts[1, 1].diagonal()
        self.confusion += counts.sum(dim=(0, 1))
        self.boundary_intersection += intersection
        self.boundary_union += annotated + predicted - intersection
        self.images += 1

    def compute(self) -> SegmentationScores:
        """Returns the numbers over the images that were added."""
        right = self.confusion.diagonal()
        union = self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - right
        per_class = _fractions(right, union)
        (accuracy,) = _fractions(right.sum()[None], self.confusion.sum()[None])
        boundary = _fractions(self.boundary_intersection, self.boundary_union)
        return SegmentationScores(
            mIoU=_mean(per_class),
            pixel_accuracy=accuracy,
            boundary_IoU=_mean(boundary),
            per_class=dict(zip(self.names, per_class, strict=True)),
            images=int(self.images),
        )


def near_contour(labels: UInt8[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """Marks the pixels whose region ends within `width` pixels, horizontally, vertically or both.

    For each class this equals its mask, padded with zeros, minus the mask after `width` erosions by
    3x3. A pixel survives the erosions if the square of 2 width + 1 pixels around it holds its class
    alone, that is if the smallest and the largest label in the square are the same: two filters
    serve all classes. Outside the image, every label counts as `IGNORE_INDEX`.

    Args:
        labels: Label of every pixel; the result is meaningless at ignored pixels.
        width: Width of the boundary in pixels.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # Erosion needs no border value: IGNORE_INDEX is the largest label, never the smallest.
    least = cv2.erode(labels, square)
    greatest = cv2.dilate(labels, square, borderType=cv2.BORDER_CONSTANT, borderValue=IGNORE_INDEX)
    return np.not_equal(least, greatest)


def _joint_counts(
    near: Sequence[Bool[np.ndarray, " N"]],
    labels: Sequence[UInt8[np.ndarray, " N"]],
    num_labels: int,
) -> Int64[np.ndarray, "2 2 L L"]:
    """Counts pixels by four properties.

    Args:
        near: Whether each pixel is near a contour, in the annotation and in the prediction.
        labels: Label of each pixel, in the annotation and in the prediction.
        num_labels: Number of labels.

    Returns:
        Numbers of pixels, by the two values of `near` and the two labels.
    """
    shape = (2, 2, num_labels, num_labels)
    code = np.zeros(len(labels[0]), np.int64)
    for values, size in zip((*near, *labels), shape, strict=True):
        code *= size
        code += values
    return np.bincount(code, minlength=math.prod(shape)).reshape(shape)


def _fractions(part: Int64[Tensor, " n"], whole: Int64[Tensor, " n"]) -> list[float | None]:
    """Returns the quotients of integer counts; None where the divisor is 0."""
    return [p / w if w else None for p, w in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None
