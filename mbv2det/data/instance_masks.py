"""Masks drawn from the outlines of instances, as COCO annotates them."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int16, Int64, UInt8

from mbv2det.data.masks import default_label, match_names
from mbv2det.data.outlines import OutlineKind, Outlines
from mbv2det.data.spans import take_spans
from mbv2det.labels import LabelMap
from mbv2det.structures import IGNORE_INDEX

_MAX_SIDE = 1 << 30  # pixels; larger numbers of a box are far beyond any image


@dataclass(frozen=True)
class InstanceMasks:
    """Masks drawn from the outlines of instances.

    Pixels of several instances and pixels of crowds are ignored, and so is the box of an instance
    without a usable outline. Pixels outside all instances of labelled classes are background. This
    is torchvision's rule for COCO in VOC's classes, except that torchvision has no rule for crowds
    and for missing outlines.

    Attributes:
        label_map: Labels of the masks, `background` among them.
        class_names: Names of the instances' classes.
        sizes: (height, width) of each image.
        starts: Row of the first instance of each image, and the number of instances at the end.
        classes: Index into `class_names` of each instance.
        crowd: COCO's iscrowd of each instance.
        boxes: xyxy box of each instance in pixels.
        outlines: Outline of each instance.
    """

    label_map: LabelMap
    class_names: tuple[str, ...]
    sizes: Int64[np.ndarray, "I 2"]
    starts: Int64[np.ndarray, " I+1"]
    classes: Int64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 4"]
    outlines: Outlines

    @cached_property
    def label_of_class(self) -> Int16[np.ndarray, " K"]:
        """Label of each class of instances."""
        return match_names(self.class_names, self.label_map)

    @cached_property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images whose labelled instances have boxes but no outlines."""
        labelled = self.label_of_class[self.classes] != default_label(self.label_map)
        absent = self.outlines.kinds == OutlineKind.ABSENT
        image = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        without, given = (
            np.bincount(image[labelled & rows], minlength=len(self.sizes)) > 0
            for rows in (absent, ~absent)
        )
        return given | ~without

    def at(self, indices: Int64[np.ndarray, " M"]) -> "InstanceMasks":
        """Returns the masks of the images at some positions, in their order."""
        rows, starts = take_spans(self.starts, indices)
        return replace(
            self,
            sizes=self.sizes[indices],
            starts=starts,
            classes=self.classes[rows],
            crowd=self.crowd[rows],
            boxes=self.boxes[rows],
            outlines=self.outlines.at(rows),
        )

    def source(self, index: int) -> str:
        """Returns a name for the outlines, which have no file of their own."""
        return "the annotation"

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Draws the mask of an annotated image, in the frame of the original file."""
        height, width = (int(side) for side in self.sizes[index])
        background = default_label(self.label_map)
        mask = np.full((height, width), background, np.uint8)
        all_rows = range(int(self.starts[index]), int(self.starts[index + 1]))
        rows = [row for row in all_rows if self.label_of_class[self.classes[row]] != background]
        # Boxes come first: the pixels of an outline within them are known.
        for row in rows:
            if self.outlines.kinds[row] < OutlineKind.POLYGONS:
                mask[self._box_pixels(row)] = IGNORE_INDEX
        covered = np.zeros((height, width), bool)
        for row in rows:
            if self.outlines.kinds[row] >= OutlineKind.POLYGONS:
                label = self.label_of_class[self.classes[row]]
                inside = self.outlines.draw(row, (height, width)).astype(bool)
                mask[inside] = IGNORE_INDEX if self.crowd[row] else label
                mask[inside & covered] = IGNORE_INDEX
                covered |= inside
        return mask

    def _box_pixels(self, row: int) -> tuple[slice, slice]:
        """Returns the rows and columns of all pixels that the box of an instance touches."""
        x_min, y_min, x_max, y_max = self.boxes[row].clip(0, _MAX_SIDE).tolist()
        return slice(int(y_min), math.ceil(y_max)), slice(int(x_min), math.ceil(x_max))

    def with_label_map(self, label_map: LabelMap) -> "InstanceMasks":
        """Returns the masks in the labels of another map, matched by name; see `Masks`."""
        return replace(self, label_map=label_map)
