"""The segmentation metric of a whole split, gathered batch by batch and over all processes.

Notable choices:

* Every number comes from pixel counts of the whole split, as in the VOC kit. A mean over images of
  each one's IoU, which some libraries call mean IoU, is another number.
* The states are counts of fixed shape that processes add up, so none has to wait for another's.
* The boundaries of all classes are found at once: a pixel lies near its region's contour where the
  labels around it are not all the same.
"""

import math
from collections.abc import Callable, Sequence
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
    """Fractions in 0..1, None where there is nothing to measure, and the images they cover."""

    mIoU: float | None
    pixel_accuracy: float | None
    boundary_IoU: float | None
    per_class: dict[str, float | None]
    images: int


class MeanIoU(Metric):
    """Intersection over union of each class against the untouched masks of a split.

    Over all pixels that are not ignored: IoU = right / (annotated + predicted - right). A class
    that is predicted somewhere but annotated nowhere has an IoU of 0, which counts in the mean, as
    in VOC's kit. A class that is neither is None and left out of the mean (the kit's would be NaN).

    Boundary IoU is the same over the pixels within 2% of the image diagonal, at least one pixel, of
    the contour of the region that each map puts them in. The image border and ignored pixels count
    as contour, in both maps alike.

    The order of the images and the number of processes do not change the result. Images are not
    told apart: one that comes twice counts twice.

    Args:
        names: Of the labels, background included.
        truth: Index of an image in the split to its mask, in the frame of the original file; None
            for an image without a mask, which is left out.
        kwargs: Of `torchmetrics.Metric`.

    Source: VOCevalseg.m of the VOC2012 development kit. Cheng et al. 2021 (arXiv:2103.16562) and
        their mask_to_boundary; differs: the masks are those of classes, not objects, whose pixels
        are summed over the split, and ignored pixels are taken from both maps before their contours
        are drawn, so that a perfect prediction scores 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor  # (L, L) int64: pixels by annotated label (row) and predicted label (column)
    boundary_intersection: Tensor  # (L,) int64
    boundary_union: Tensor  # (L,) int64
    images: Tensor  # () int64: those with a mask

    def __init__(
        self,
        names: Sequence[str],
        truth: Callable[[int], UInt8[np.ndarray, "H W"] | None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.truth = truth
        size = len(self.names)
        for state, shape in (
            ("confusion", (size, size)),
            ("boundary_intersection", (size,)),
            ("boundary_union", (size,)),
            ("images", ()),
        ):
            self.add_state(state, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, maps: Sequence[SegmentationMap], indices: Sequence[int]) -> None:
        """Counts the pixels of some images.

        Args:
            maps: One for each image, on any device.
            indices: Positions of the images in the split.

        Raises:
            ValueError: If a map has not the size of its image's mask, if either holds a label
                outside 0..L-1, or there are not as many indices as maps.
        """
        for found, index in zip(maps, indices, strict=True):
            truth = self.truth(index)
            if truth is None:
                continue
            if found.labels.shape != truth.shape:
                raise ValueError(
                    f"expected a map of the size of the mask of image {index}, {truth.shape}, but "
                    f"got {tuple(found.labels.shape)}"
                )
            self._count(truth, found.labels.cpu().numpy(), index)

    def _count(
        self, truth: UInt8[np.ndarray, "H W"], found: UInt8[np.ndarray, "H W"], index: int
    ) -> None:
        counted = truth != IGNORE_INDEX
        for what, labels in (("mask", truth[counted]), ("prediction", found)):
            highest = int(labels.max(initial=0))
            if highest >= len(self.names):
                raise ValueError(
                    f"expected labels in 0..{len(self.names) - 1} in the {what} of image {index}, "
                    f"but got {highest}"
                )
        width = max(1, round(_BOUNDARY_WIDTH * math.hypot(*truth.shape)))
        both = (truth, np.where(counted, found, np.uint8(IGNORE_INDEX)))
        counts = torch.from_numpy(
            _joint_counts(
                near=[near_contour(labels, width)[counted] for labels in both],
                labels=[labels[counted] for labels in both],
                num_labels=len(self.names),
            )
        ).to(self.device)
        by_truth, by_found = counts[1].sum(dim=(0, 2)), counts[:, 1].sum(dim=(0, 1))
        intersection = counts[1, 1].diagonal()
        self.confusion += counts.sum(dim=(0, 1))
        self.boundary_intersection += intersection
        self.boundary_union += by_truth + by_found - intersection
        self.images += 1

    def compute(self) -> SegmentationScores:
        """The numbers over the images that came."""
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
    """Marks the pixels whose region ends within `width` pixels of them, along either axis or both.

    Equal to what is left of each class's mask, padded with zeros, when `width` erosions by 3x3 are
    subtracted from it: a pixel survives them where the square of 2 width + 1 pixels around it holds
    its class alone, that is where the least and the greatest label of the square are the same. Two
    filters thus serve all classes. What lies outside the image is `IGNORE_INDEX`, no class's.

    Args:
        labels: Of an image; the region of ignored pixels is meaningless.
        width: Pixels.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    least = cv2.erode(labels, square)  # takes no notice of what lies outside: nothing is greater
    greatest = cv2.dilate(labels, square, borderType=cv2.BORDER_CONSTANT, borderValue=IGNORE_INDEX)
    return np.not_equal(least, greatest)


def _joint_counts(
    near: Sequence[Bool[np.ndarray, " N"]],
    labels: Sequence[UInt8[np.ndarray, " N"]],
    num_labels: int,
) -> Int64[np.ndarray, "2 2 L L"]:
    """Pixels by near the contour in the truth and in the prediction, and by label in each."""
    shape = (2, 2, num_labels, num_labels)
    code = np.zeros(len(labels[0]), np.int64)
    for values, size in zip((*near, *labels), shape, strict=True):
        code *= size
        code += values
    return np.bincount(code, minlength=math.prod(shape)).reshape(shape)


def _fractions(part: Int64[Tensor, " n"], whole: Int64[Tensor, " n"]) -> list[float | None]:
    """Quotients, or None of nothing; of integers, so that equal counts give equal numbers."""
    return [p / w if w else None for p, w in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None
