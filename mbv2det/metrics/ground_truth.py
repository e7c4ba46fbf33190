"""The two sides of every detection metric, as flat arrays over all images of a split.

Both are in the frame of the original image files. The ground truth is the annotation as it came,
untouched by the resizing, clipping and filtering that training targets go through.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.annotations import Annotations


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects of a whole split; rows in any order.

    Attributes:
        class_names: One name for each label.
        num_images: Images of the split, those without objects included.
        image: Which image the object lies in, 0..num_images-1. Where detections of two images score
            the same, the lower number comes first.
        boxes: Pixels of the original image.
        labels: 0..K-1.
        areas: Square pixels, for COCO's size ranges: the annotation's own area field, which is the
            area of the object's mask, or that of its box where the data set has no such field.
        crowd: COCO's regions of many objects.
        difficult: VOC's objects that need not be found.
    """

    class_names: tuple[str, ...]
    num_images: int
    image: Int64[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 4"]
    labels: Int64[np.ndarray, " N"]
    areas: Float64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    difficult: Bool[np.ndarray, " N"]

    @classmethod
    def of(cls, annotations: Annotations) -> "GroundTruth":
        """Every object of a split as its files have it."""
        objects = annotations.objects
        assert objects is not None
        return cls(
            class_names=objects.labels.names,
            num_images=len(annotations),
            image=objects.image,
            boxes=objects.boxes,
            labels=objects.classes,
            areas=objects.areas,
            crowd=objects.crowd,
            difficult=objects.difficult,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ignore(self) -> Bool[np.ndarray, " N"]:
        """True for objects that are neither to be found nor to be missed."""
        return self.crowd | self.difficult

    def of_images(self, images: Int64[np.ndarray, " M"]) -> "GroundTruth":
        """The objects of some of the images, which keep their numbers."""
        kept = np.isin(self.image, images)
        return replace(
            self,
            image=self.image[kept],
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
            difficult=self.difficult[kept],
        )


@dataclass(frozen=True)
class ScoredBoxes:
    """What was found in the images of a split; rows in any order.

    Only the order of equally scored boxes of one image can matter: the first counts as better.

    Attributes:
        image: Which image the box was found in.
        boxes: Pixels of the original image.
        scores: Comparable across images and classes.
        labels: 0..K-1.
    """

    image: Int64[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 4"]
    scores: Float64[np.ndarray, " N"]
    labels: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)
