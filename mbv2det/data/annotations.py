"""The annotation of one split, in flat arrays.

Data loader workers are forked copies of the process: millions of small Python objects would be
copied page by page as their reference counts are touched, a handful of arrays is shared.
"""

from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from mbv2det.data.masks import IndexMasks, Masks
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.structures import Instances


@dataclass
class Report:
    """What a reader met and worked around: every kind with a count and the files concerned."""

    where: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, file: str) -> None:
        """Notes one occurrence."""
        self.where[what].append(file)

    def lines(self, shown: int = 5) -> list[str]:
        """One line for each kind, naming the first few files."""
        lines = []
        for what, files in self.where.items():
            names = list(dict.fromkeys(files))
            more = f" and {len(names) - shown} more" if len(names) > shown else ""
            lines.append(f"{len(files)} {what}: {', '.join(names[:shown])}{more}")
        return lines


@dataclass(frozen=True)
class Objects:
    """The boxes of one split; those of image i are rows starts[i]:starts[i + 1].

    Attributes:
        labels: Names and ids of the classes.
        annotated: False for images whose objects nobody annotated: they have rows for none.
        starts: First object of each image, and the number of objects at the end.
        boxes: xyxy pixels of the original image, exactly as the file has them.
        classes: 0..K-1 of each object.
        areas: Square pixels, as the data set defines them.
        crowd: COCO's iscrowd.
        difficult: VOC's difficult.
    """

    labels: LabelMap
    annotated: Bool[np.ndarray, " I"]
    starts: Int64[np.ndarray, " I+1"]
    boxes: Float64[np.ndarray, "N 4"]
    classes: Int64[np.ndarray, " N"]
    areas: Float64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    difficult: Bool[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.boxes)

    def rows(self, index: int) -> slice:
        """Of one image."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    @property
    def image(self) -> Int64[np.ndarray, " N"]:
        """Index of the image that each object lies in."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """Objects of one image, clipped to it; boxes with nothing inside are left out.

        Args:
            index: Of the image.
            size: (height, width) of the decoded image.
        """
        rows = self.rows(index)
        boxes = clip(self.boxes[rows], size)
        kept = has_area(boxes)
        ignore = self.crowd[rows] | self.difficult[rows]
        return Instances(boxes[kept].astype(np.float32), self.classes[rows][kept], ignore[kept])

    def relabelled(self, labels: LabelMap, classes: Int64[np.ndarray, " N"]) -> "Objects":
        """The objects whose new class is not negative.

        Args:
            labels: Of the new classes.
            classes: Of every object.
        """
        kept = classes >= 0
        counts = np.bincount(self.image[kept], minlength=len(self.starts) - 1)
        return Objects(
            labels,
            self.annotated,
            np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            self.boxes[kept],
            classes[kept],
            self.areas[kept],
            self.crowd[kept],
            self.difficult[kept],
        )


@dataclass(frozen=True)
class Annotations:
    """Images of one split, with their objects, their masks or both.

    Attributes:
        name: For messages: the file or list it was read from.
        image_ids: The data set's own, as text.
        files: Path of each image.
        sizes: Annotated (height, width) of each image; 0 where the annotation is silent.
        objects: Boxes; None where none were asked for.
        masks: A label for every pixel; None where none were asked for.
        report: What had to be worked around.
    """

    name: str
    image_ids: np.ndarray
    files: np.ndarray
    sizes: Int64[np.ndarray, "I 2"]
    objects: Objects | None = None
    masks: Masks | None = None
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        if not len(self):
            raise DataError(f"{self.name}: expected at least one image, got none")

    def __len__(self) -> int:
        return len(self.files)

    def summary(self) -> str:
        """One line of counts."""
        parts = [f"{len(self)} images"]
        if self.objects is not None:
            parts.append(f"{len(self.objects)} objects of {len(self.objects.labels)} classes")
            empty = int(((np.diff(self.objects.starts) == 0) & self.objects.annotated).sum())
            unknown = int((~self.objects.annotated).sum())
            parts += [f"{empty} images without any"] if empty else []
            parts += [f"{unknown} without annotated boxes"] if unknown else []
        if self.masks is not None:
            annotated = int(self.masks.annotated.sum())
            parts.append(f"{annotated} masks of {len(self.masks.labels)} labels")
        return ", ".join(parts)

    def path(self, index: int) -> Path:
        """Of an image file."""
        return Path(str(self.files[index]))

    def size(self, index: int) -> tuple[int, int] | None:
        """Annotated (height, width) of an image."""
        height, width = (int(v) for v in self.sizes[index])
        return (height, width) if height > 0 and width > 0 else None

    def instances(self, index: int, size: tuple[int, int]) -> Instances | None:
        """Objects of one image as training takes them; None where nobody annotated them.

        Args:
            index: Of the image.
            size: (height, width) of the decoded image.
        """
        if self.objects is None or not self.objects.annotated[index]:
            return None
        return self.objects.instances(index, size)

    def mask(self, index: int) -> UInt8[np.ndarray, "H W"] | None:
        """Label of every pixel of one image; None where nobody annotated them."""
        if self.masks is None or not self.masks.annotated[index]:
            return None
        return self.masks.read(index)

    def mask_source(self, index: int) -> str:
        """What the mask of an image is read from, for messages."""
        assert self.masks is not None
        return self.masks.source(index)

    def with_labels(self, labels: LabelMap) -> "Annotations":
        """The same images with the object classes of another map, matched by name.

        Objects of other classes are left out and counted in the report.

        Raises:
            DataError: If no class has a name in common.
        """
        objects = self.objects
        if objects is None or labels == objects.labels:
            return self
        found = [labels.find(name) for name in objects.labels.names]
        target = np.array([-1 if label is None else label for label in found])
        if (target < 0).all():
            raise DataError(
                f"{self.name}: none of its classes ({', '.join(objects.labels.names[:5])}, ...) is "
                f"among those asked for ({', '.join(labels.names[:5])}, ...)"
            )
        classes = target[objects.classes]
        image = objects.image
        report = deepcopy(self.report)
        for row in np.flatnonzero(classes < 0):
            name = objects.labels.names[objects.classes[row]]
            what = f"objects of other classes left out ({name})"
            report.add(what, self.path(int(image[row])).name)
        return replace(self, objects=objects.relabelled(labels, classes), report=report)

    def with_mask_labels(self, labels: LabelMap) -> "Annotations":
        """The same images with masks in the labels of another map, matched by name.

        Raises:
            DataError: If no label but background has a name in common.
        """
        if self.masks is None or labels == self.masks.labels:
            return self
        known = [name for name in self.masks.labels.names if labels.find(name) is not None]
        if set(known) <= {BACKGROUND}:
            raise DataError(
                f"{self.name}: none of its masks' labels "
                f"({', '.join(self.masks.labels.names[:5])}, ...) is among those asked for "
                f"({', '.join(labels.names[:5])}, ...)"
            )
        report = deepcopy(self.report)
        fate = "taken for background" if labels.find(BACKGROUND) is not None else "ignored"
        left_out = [name for name in self.masks.labels.names if name not in known]
        if left_out:
            report.add(
                f"list of mask labels not asked for, {fate} ({', '.join(left_out)})", self.name
            )
        return replace(self, masks=self.masks.with_labels(labels), report=report)

    def report_boxes(self) -> None:
        """Counts boxes that training must clip or drop, where the image's size is annotated."""
        assert self.objects is not None
        boxes, image = self.objects.boxes, self.objects.image
        height, width = self.sizes[image].T
        known = (height > 0) & (width > 0)
        limits = np.stack([width, height, width, height], axis=1)
        clipped = np.clip(boxes, 0, limits)
        empty, outside = ~has_area(boxes), ~has_area(clipped) & known
        beyond = (np.abs(clipped - boxes) > 1.0).any(axis=1) & known
        for what, rows in (
            ("degenerate boxes (zero or negative width or height) not trained on", empty),
            ("boxes wholly outside the image not trained on", outside & ~empty),
            ("boxes reaching out of the image by more than a pixel clipped", beyond & ~outside),
        ):
            for row in np.flatnonzero(rows):
                self.report.add(what, self.path(int(image[row])).name)


def union(boxes: Annotations, masks: Annotations) -> Annotations:
    """The images of two lists of one data set: boxes of the first, masks of the second.

    An image of both lists carries both; of one list, only what that list is about.
    """
    assert boxes.objects is not None
    assert isinstance(masks.masks, IndexMasks)
    position = {str(file): row for row, file in enumerate(masks.files)}
    extra = np.flatnonzero(~np.isin(masks.files, boxes.files))
    files = np.concatenate([boxes.files, masks.files[extra]])
    objects = boxes.objects
    report = deepcopy(boxes.report)
    for what, where in masks.report.where.items():
        report.where[what] += where
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
        report=report,
    )


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)).tolist()


def clip(boxes: Float64[np.ndarray, "N 4"], size: tuple[int, int]) -> Float64[np.ndarray, "N 4"]:
    """Moves every corner into an image of (height, width) `size`."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float64))


def has_area(boxes: Float64[np.ndarray, "N 4"]) -> Bool[np.ndarray, " N"]:
    """True where width and height are positive."""
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
