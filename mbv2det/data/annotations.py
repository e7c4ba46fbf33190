"""The annotation of one split, in flat arrays.

Data loader workers are forked copies of the process: millions of small Python objects would be
copied page by page as their reference counts are touched, a handful of arrays is shared.
"""

from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.errors import DataError
from mbv2det.labels import LabelMap
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
class Annotations:
    """Images and objects of one split; objects of image i are rows starts[i]:starts[i + 1].

    Attributes:
        name: For messages: the file or list it was read from.
        labels: Names and ids of the classes.
        image_ids: The data set's own, as text.
        files: Path of each image.
        sizes: Annotated (height, width) of each image; 0 where the annotation is silent.
        starts: First object of each image, and the number of objects at the end.
        boxes: xyxy pixels of the original image, exactly as the file has them.
        classes: 0..K-1 of each object.
        areas: Square pixels, as the data set defines them.
        crowd: COCO's iscrowd.
        difficult: VOC's difficult.
        report: What had to be worked around.
    """

    name: str
    labels: LabelMap
    image_ids: np.ndarray
    files: np.ndarray
    sizes: Int64[np.ndarray, "I 2"]
    starts: Int64[np.ndarray, " I+1"]
    boxes: Float64[np.ndarray, "N 4"]
    classes: Int64[np.ndarray, " N"]
    areas: Float64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    difficult: Bool[np.ndarray, " N"]
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        if not len(self):
            raise DataError(f"{self.name}: expected at least one image, got none")

    def __len__(self) -> int:
        return len(self.files)

    def summary(self) -> str:
        """One line of counts."""
        empty = int((np.diff(self.starts) == 0).sum())
        without = f", {empty} images without any" if empty else ""
        return (
            f"{len(self)} images, {len(self.boxes)} objects of {len(self.labels)} classes{without}"
        )

    def path(self, index: int) -> Path:
        """Of an image file."""
        return Path(str(self.files[index]))

    def size(self, index: int) -> tuple[int, int] | None:
        """Annotated (height, width) of an image."""
        height, width = (int(v) for v in self.sizes[index])
        return (height, width) if height > 0 and width > 0 else None

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """Objects of one image, clipped to it; boxes with nothing inside are left out.

        Args:
            index: Of the image.
            size: (height, width) of the decoded image.
        """
        rows = slice(self.starts[index], self.starts[index + 1])
        boxes = clip(self.boxes[rows], size)
        kept = has_area(boxes)
        ignore = (
            (self.crowd | self.difficult)[rows] if rows.stop > rows.start else np.zeros(0, bool)
        )
        return Instances(boxes[kept].astype(np.float32), self.classes[rows][kept], ignore[kept])

    def with_labels(self, labels: LabelMap) -> "Annotations":
        """The same images with the classes of another map, matched by name.

        Objects of other classes are left out and counted in the report.

        Raises:
            DataError: If no class has a name in common.
        """
        if labels == self.labels:
            return self
        target = np.array([labels.label_of_name.get(name, -1) for name in self.labels.names])
        if (target < 0).all():
            raise DataError(
                f"{self.name}: none of its classes ({', '.join(self.labels.names[:5])}, ...) is "
                f"among those asked for ({', '.join(labels.names[:5])}, ...)"
            )
        classes = target[self.classes]
        kept = classes >= 0
        image = self.image_of_box()
        report = deepcopy(self.report)
        for row in np.flatnonzero(~kept):
            what = f"objects of other classes left out ({self.labels.names[self.classes[row]]})"
            report.add(what, self.path(int(image[row])).name)
        counts = np.bincount(image[kept], minlength=len(self))
        return replace(
            self,
            labels=labels,
            starts=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            boxes=self.boxes[kept],
            classes=classes[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
            difficult=self.difficult[kept],
            report=report,
        )

    def image_of_box(self) -> Int64[np.ndarray, " N"]:
        """Index of the image that each object lies in."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def report_boxes(self) -> None:
        """Counts boxes that training must clip or drop, where the image's size is annotated."""
        image = self.image_of_box()
        height, width = self.sizes[image].T
        known = (height > 0) & (width > 0)
        limits = np.stack([width, height, width, height], axis=1)
        clipped = np.clip(self.boxes, 0, limits)
        empty, outside = ~has_area(self.boxes), ~has_area(clipped) & known
        beyond = (np.abs(clipped - self.boxes) > 1.0).any(axis=1) & known
        for what, rows in (
            ("degenerate boxes (zero or negative width or height) not trained on", empty),
            ("boxes wholly outside the image not trained on", outside & ~empty),
            ("boxes reaching out of the image by more than a pixel clipped", beyond & ~outside),
        ):
            for row in np.flatnonzero(rows):
                self.report.add(what, self.path(int(image[row])).name)


def clip(boxes: Float64[np.ndarray, "N 4"], size: tuple[int, int]) -> Float64[np.ndarray, "N 4"]:
    """Moves every corner into an image of (height, width) `size`."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float64))


def has_area(boxes: Float64[np.ndarray, "N 4"]) -> Bool[np.ndarray, " N"]:
    """True where width and height are positive."""
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
