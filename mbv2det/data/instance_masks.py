"""Masks drawn from the outlines of instances, as COCO annotates them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Bool, Int16, Int64, UInt8

from mbv2det.data.masks import default_label, match_names
from mbv2det.labels import LabelMap
from mbv2det.structures import IGNORE_INDEX


@dataclass(frozen=True)
class InstanceMasks:
    """Masks drawn from the outlines of instances.

    Pixels of several instances and pixels of crowds are ignored. Pixels outside all instances of
    labelled classes are background. This is torchvision's rule for COCO in VOC's classes, except
    that torchvision has no rule for crowds.

    Attributes:
        label_map: Labels of the masks, `background` among them.
        class_names: Names of the instances' classes.
        sizes: (height, width) of each image.
        starts: Row of the first instance of each image, and the number of instances at the end.
        classes: Index into `class_names` of each instance.
        crowd: COCO's iscrowd of each instance.
        codes: COCO's compressed run lengths of all instances, concatenated.
        code_starts: Index into `codes` of the first byte of each instance, and the number of bytes
            at the end; an instance without an outline has no bytes.
    """

    label_map: LabelMap
    class_names: tuple[str, ...]
    sizes: Int64[np.ndarray, "I 2"]
    starts: Int64[np.ndarray, " I+1"]
    classes: Int64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    codes: UInt8[np.ndarray, " bytes"]
    code_starts: Int64[np.ndarray, " N+1"]

    @cached_property
    def label_of_class(self) -> Int16[np.ndarray, " K"]:
        """Label of each class of instances."""
        return match_names(self.class_names, self.label_map)

    @cached_property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images with an instance that has a label but no outline."""
        labelled = self.label_of_class[self.classes] != default_label(self.label_map)
        missing = (np.diff(self.code_starts) == 0) & labelled
        image = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        return np.bincount(image[missing], minlength=len(self.sizes)) == 0

    def source(self, index: int) -> str:
        """Returns a name for the outlines, which have no file of their own."""
        return "the annotation"

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Draws the mask of an annotated image, in the frame of the original file."""
        height, width = (int(side) for side in self.sizes[index])
        background = default_label(self.label_map)
        mask = np.full((height, width), background, np.uint8)
        covered = np.zeros((height, width), bool)
        for row in range(int(self.starts[index]), int(self.starts[index + 1])):
            label = self.label_of_class[self.classes[row]]
            if label == background:
                continue
            code = self.codes[self.code_starts[row] : self.code_starts[row + 1]].tobytes()
            inside = rle.decode({"size": [height, width], "counts": code}).astype(bool)
            mask[inside] = IGNORE_INDEX if self.crowd[row] else label
            mask[inside & covered] = IGNORE_INDEX
            covered |= inside
        return mask

    def with_label_map(self, label_map: LabelMap) -> "InstanceMasks":
        """Returns the masks in the labels of another map, matched by name; see `Masks`."""
        return replace(self, label_map=label_map)
