"""The annotated objects of one split, as flat arrays.

Training takes them image by image as `Instances`, clipped to the image. Detection metrics take them
as they are: the ground truth in the frame of the original image files, without the resizing,
clipping and filtering of training targets.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.data.spans import take_spans
from mbv2det.labels import LabelMap
from mbv2det.structures import Instances


@dataclass(frozen=True)
class Objects:
    """The objects of one split, sorted by image; those of image i are rows starts[i]:starts[i + 1].

    Attributes:
        label_map: Names and ids of the classes.
        annotated: False for images whose objects are not annotated; they have no rows.
        starts: Row of the first object of each image, and the number of objects at the end.
        boxes: xyxy boxes in pixels of the original image, exactly as in the annotation file.
        labels: Class of each object, 0..K-1.
        areas: Area of each object in square pixels, for COCO's size ranges: the area field of the
            annotation, which is the area of the object's mask, or the area of the box if there is
            no such field.
        crowd: COCO's iscrowd: True for a region of many objects.
        difficult: VOC's difficult: True for an object that detectors need not detect.
    """

    label_map: LabelMap
    annotated: Bool[np.ndarray, " I"]
    starts: Int64[np.ndarray, " I+1"]
    boxes: Float64[np.ndarray, "N 4"]
    labels: Int64[np.ndarray, " N"]
    areas: Float64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    difficult: Bool[np.ndarray, " N"]

    @classmethod
    def group_by_image(
        cls,
        label_map: LabelMap,
        num_images: int,
        image: Int64[np.ndarray, " N"],
        *,
        boxes: Float64[np.ndarray, "N 4"],
        labels: Int64[np.ndarray, " N"],
        areas: Float64[np.ndarray, " N"],
        crowd: Bool[np.ndarray, " N"] | None = None,
        difficult: Bool[np.ndarray, " N"] | None = None,
    ) -> "Objects":
        """Sorts objects by image; the objects of one image keep their order.

        Args:
            label_map: Names and ids of the classes.
            num_images: Number of images, all of them annotated.
            image: Index of the image of each object, 0..num_images-1.
            boxes: xyxy boxes in pixels of the original image.
            labels: Class of each object, 0..K-1.
            areas: Area of each object in square pixels.
            crowd: True for crowds; None for a data set without crowds.
            difficult: True for difficult objects; None for a data set without such a flag.
        """
        order = np.argsort(image, kind="stable")
        all_false = np.zeros(len(image), bool)
        return cls(
            label_map,
            np.ones(num_images, bool),
            _starts(image, num_images),
            boxes[order],
            labels[order],
            areas[order],
            (all_false if crowd is None else crowd)[order],
            (all_false if difficult is None else difficult)[order],
        )

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def num_images(self) -> int:
        """Number of images of the split, including those without objects."""
        return len(self.annotated)

    @property
    def image(self) -> Int64[np.ndarray, " N"]:
        """Index of the image of each object."""
        return np.repeat(np.arange(self.num_images), np.diff(self.starts))

    @property
    def ignore(self) -> Bool[np.ndarray, " N"]:
        """True for objects that count neither as found nor as missed: crowds and difficult ones."""
        return self.crowd | self.difficult

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """Returns the objects of one image, clipped to it, without boxes that become empty.

        Args:
            index: Index of the image.
            size: (height, width) of the decoded image.
        """
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        boxes = clip(self.boxes[rows], size)
        kept = has_area(boxes)
        ignore = self.crowd[rows] | self.difficult[rows]
        return Instances(boxes[kept].astype(np.float32), self.labels[rows][kept], ignore[kept])

    def of_images(self, images: Int64[np.ndarray, " M"]) -> "Objects":
        """Returns the objects of some images; images keep their indices, the others are empty."""
        return self._select(np.isin(self.image, images))

    def at(self, indices: Int64[np.ndarray, " M"]) -> "Objects":
        """Returns the objects of the images at some positions, renumbered 0..M-1 in their order."""
        rows, starts = take_spans(self.starts, indices)
        return replace(
            self,
            annotated=self.annotated[indices],
            starts=starts,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            difficult=self.difficult[rows],
        )

    def relabel(self, label_map: LabelMap, labels: Int64[np.ndarray, " N"]) -> "Objects":
        """Returns the objects with other labels, without those whose new label is negative.

        Args:
            label_map: Names and ids of the new classes.
            labels: New label of each object, or -1 to leave it out.
        """
        return replace(self, label_map=label_map, labels=labels)._select(labels >= 0)

    def _select(self, kept: Bool[np.ndarray, " N"]) -> "Objects":
        return replace(
            self,
            starts=_starts(self.image[kept], self.num_images),
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
            difficult=self.difficult[kept],
        )


def _starts(image: Int64[np.ndarray, " N"], num_images: int) -> Int64[np.ndarray, " S"]:
    """Returns the row of the first object of each image, and the number of objects at the end."""
    counts = np.bincount(image, minlength=num_images)
    return np.concatenate([[0], counts.cumsum()]).astype(np.int64)


def clip(boxes: Float64[np.ndarray, "N 4"], size: tuple[int, int]) -> Float64[np.ndarray, "N 4"]:
    """Moves every corner of xyxy boxes into an image of (height, width) `size`."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float64))


def has_area(boxes: Float64[np.ndarray, "N 4"]) -> Bool[np.ndarray, " N"]:
    """Returns True for xyxy boxes whose width and height are positive."""
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
