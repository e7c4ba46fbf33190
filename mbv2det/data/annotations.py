"""The annotation of one split: its images, and their objects, their masks or both.

Everything is stored in flat arrays. Data loader workers are forked copies of the process: millions
of small Python objects would be copied page by page as their reference counts change, whereas a few
arrays stay shared.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.index_masks import IndexMasks
from mbv2det.data.masks import Masks
from mbv2det.data.objects import Objects, has_area
from mbv2det.data.value_range import ValueRange
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.structures import Instances


@dataclass(frozen=True)
class Annotations:
    """The images of one split with their objects, their masks or both.

    Attributes:
        name: The file or list that the split was read from, for messages.
        image_ids: The data set's own ids, as text.
        files: Path of each image.
        sizes: Annotated (height, width) of each image; 0 where it is not annotated.
        objects: Annotated objects; None if the data set has none or they were not requested.
        masks: Annotated masks; None if the data set has none or they were not requested.
        outlines: Outlines of the objects for copy-paste, where no masks were requested.
        faults: Faults of the annotation that were worked around.
        value_range: Values of images of more than 8 bits that become 0 and 255.

    Raises:
        DataError: If there is no image.
    """

    name: str
    image_ids: np.ndarray
    files: np.ndarray
    sizes: Int64[np.ndarray, "I 2"]
    objects: Objects | None = None
    masks: Masks | None = None
    outlines: Masks | None = None
    faults: FaultCounts = field(default_factory=FaultCounts)
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        if not len(self):
            raise DataError(f"{self.name}: expected at least one image, got none")

    def __len__(self) -> int:
        return len(self.files)

    def summary(self) -> str:
        """Returns one line with the numbers of images, objects, classes and masks."""
        parts = [f"{len(self)} images"]
        if self.objects is not None:
            parts.append(f"{len(self.objects)} objects of {len(self.objects.label_map)} classes")
            empty = int(((np.diff(self.objects.starts) == 0) & self.objects.annotated).sum())
            unknown = int((~self.objects.annotated).sum())
            parts += [f"{empty} images without any"] if empty else []
            parts += [f"{unknown} without annotated boxes"] if unknown else []
        if self.masks is not None:
            annotated = int(self.masks.annotated.sum())
            parts.append(f"{annotated} masks of {len(self.masks.label_map)} labels")
        return ", ".join(parts)

    def at(self, indices: Int64[np.ndarray, " M"]) -> "Annotations":
        """Returns the images at some positions, in their order.

        Raises:
            DataError: If there are none.
        """
        return replace(
            self,
            image_ids=self.image_ids[indices],
            files=self.files[indices],
            sizes=self.sizes[indices],
            objects=None if self.objects is None else self.objects.at(indices),
            masks=None if self.masks is None else self.masks.at(indices),
            outlines=None if self.outlines is None else self.outlines.at(indices),
        )

    def path(self, index: int) -> Path:
        """Returns the path of an image file."""
        return Path(str(self.files[index]))

    def size(self, index: int) -> tuple[int, int] | None:
        """Returns the annotated (height, width) of an image; None where it is not annotated."""
        height, width = (int(v) for v in self.sizes[index])
        return (height, width) if height > 0 and width > 0 else None

    def instances(self, index: int, size: tuple[int, int]) -> Instances | None:
        """Returns the objects of one image for training; None if they are not annotated.

        Args:
            index: Index of the image.
            size: (height, width) of the decoded image, to which the boxes are clipped.
        """
        if self.objects is None or not self.objects.annotated[index]:
            return None
        return self.objects.instances(index, size)

    def mask(self, index: int) -> UInt8[np.ndarray, "H W"] | None:
        """Decodes the mask of one image; returns None if the image has no mask.

        Raises:
            DataError: If the mask is damaged or has values without a label.
        """
        if self.masks is None or not self.masks.annotated[index]:
            return None
        return self.masks.read(index)

    def mask_source(self, index: int) -> str:
        """Returns the file that the mask of an image is read from, for messages."""
        assert self.masks is not None
        return self.masks.source(index)

    def with_label_map(self, label_map: LabelMap) -> "Annotations":
        """Returns the split with its objects in the classes of another map, matched by name.

        Objects of other classes are left out and counted in `faults`.

        Raises:
            DataError: If the two maps have no class in common.
        """
        objects = self.objects
        if objects is None or label_map == objects.label_map:
            return self
        own_names = objects.label_map.names
        matches = [label_map.find(name) for name in own_names]
        new_labels = np.array([-1 if label is None else label for label in matches], np.int64)
        if len(own_names) and (new_labels < 0).all():
            raise DataError(
                f"{self.name}: expected objects of one of the classes "
                f"{_first_names(label_map.names)}, got only {_first_names(own_names)}"
            )
        labels = new_labels[objects.labels]
        image = objects.image
        faults = deepcopy(self.faults)
        for row in np.flatnonzero(labels < 0):
            fault = f"objects of other classes left out ({own_names[objects.labels[row]]})"
            faults.add(fault, self.path(int(image[row])).name)
        return replace(self, objects=objects.relabel(label_map, labels), faults=faults)

    def with_mask_label_map(self, label_map: LabelMap) -> "Annotations":
        """Returns the split with its masks in the labels of another map, matched by name.

        Labels that the other map lacks become background, or are ignored where it has no
        background; they are named in `faults`.

        Raises:
            DataError: If the two maps have no label but background in common.
        """
        if self.masks is None or label_map == self.masks.label_map:
            return self
        own_names = self.masks.label_map.names
        matched = [name for name in own_names if label_map.find(name) is not None]
        if set(matched) <= {BACKGROUND}:
            raise DataError(
                f"{self.name}: expected masks with one of the labels "
                f"{_first_names(label_map.names)}, got only {_first_names(own_names)}"
            )
        faults = deepcopy(self.faults)
        treatment = "taken for background" if label_map.find(BACKGROUND) is not None else "ignored"
        left_out = [name for name in own_names if name not in matched]
        if left_out:
            fault = f"set of mask labels outside the classes, {treatment} ({', '.join(left_out)})"
            faults.add(fault, self.name)
        return replace(self, masks=self.masks.with_label_map(label_map), faults=faults)

    def count_bad_boxes(self) -> None:
        """Adds to `faults` the boxes that training clips or drops.

        A box is compared with its image only if the annotation gives the size of the image.

        Raises:
            DataError: If the boxes are in fractions of the image instead of pixels.
        """
        assert self.objects is not None
        boxes, image = self.objects.boxes, self.objects.image
        self._refuse_fractions(boxes, image)
        height, width = self.sizes[image].T
        known = (height > 0) & (width > 0)
        limits = np.stack([width, height, width, height], axis=1)
        clipped = np.clip(boxes, 0, limits)
        empty, outside = ~has_area(boxes), ~has_area(clipped) & known
        clipped_rows = (np.abs(clipped - boxes) > 1.0).any(axis=1) & known
        for fault, rows in (
            ("degenerate boxes (zero or negative width or height) not trained on", empty),
            ("boxes wholly outside the image not trained on", outside & ~empty),
            (
                "boxes reaching out of the image by more than a pixel clipped",
                clipped_rows & ~outside,
            ),
        ):
            for row in np.flatnonzero(rows):
                self.faults.add(fault, self.path(int(image[row])).name)

    def _refuse_fractions(
        self, boxes: Float64[np.ndarray, "N 4"], image: Int64[np.ndarray, " N"]
    ) -> None:
        """Refuses a split most of whose boxes lie within one pixel: fractions of the image."""
        within = (np.abs(boxes) <= 1).all(axis=1) & (boxes != np.rint(boxes)).any(axis=1)
        if within.sum() * 2 <= len(boxes):
            return
        row = int(within.argmax())
        raise DataError(
            f"{self.name}: expected boxes in pixels, got {int(within.sum())} of {len(boxes)} that "
            f"look like fractions of the image, the first in {self.path(int(image[row])).name}; "
            "multiply x by the width and y by the height of the image"
        )


def union(boxes: Annotations, masks: Annotations) -> Annotations:
    """Merges two lists of images of one data set: one with objects, the other with masks.

    Args:
        boxes: Images with objects; they come first and keep their indices.
        masks: Images with index masks.

    Returns:
        Every image once: an image of both lists has objects and a mask, any other image only one
        of the two.
    """
    assert boxes.objects is not None
    assert isinstance(masks.masks, IndexMasks)
    position = {str(file): row for row, file in enumerate(masks.files)}
    extra = np.flatnonzero(~np.isin(masks.files, boxes.files))
    files = np.concatenate([boxes.files, masks.files[extra]])
    objects = boxes.objects
    faults = deepcopy(boxes.faults)
    for fault, names in masks.faults.files.items():
        faults.files[fault] += names
    return Annotations(
        name=f"{boxes.name}, {masks.name}",
        image_ids=np.concatenate([boxes.image_ids, masks.image_ids[extra]]),
        files=files,
        sizes=np.concatenate([boxes.sizes, masks.sizes[extra]]),
        objects=replace(
            objects,
            starts=np.concatenate([objects.starts, np.full(len(extra), len(objects))]),
            annotated=np.concatenate([objects.annotated, np.zeros(len(extra), bool)]),
        ),
        masks=masks.masks.of_images([position.get(str(file)) for file in files]),
        faults=faults,
    )


def _first_names(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def evenly_spaced(count: int, most: int) -> list[int]:
    """Returns up to `most` of the positions 0..count-1, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)).tolist()
