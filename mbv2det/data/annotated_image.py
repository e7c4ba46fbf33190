"""Images with objects as the readers of text formats find them, and their `Annotations`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from mbv2det.data.annotations import Annotations
from mbv2det.data.coco import outline_masks, read_unknown_sizes
from mbv2det.data.coco_outlines import OutlineError, OutlinePacker
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.objects import Objects
from mbv2det.data.outlines import Outlines
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

Box = tuple[float, float, float, float]
"""xyxy in pixels of the image, continuous coordinates."""

Outline = list[list[float]] | dict[str, Any]
"""Polygons [[x, y, x, y, ...], ...] in pixels, or COCO's run lengths."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object.

    Attributes:
        name: Name of its class.
        box: Box around the object.
        outline: Outline; None for an object that has only a box.
        difficult: VOC's flag of objects that detectors need not detect.
    """

    name: str
    box: Box
    outline: Outline | None = None
    difficult: bool = False

    @classmethod
    def of_polygons(cls, name: str, polygons: list[list[float]]) -> "AnnotatedObject":
        """Returns the object inside of polygons, with the box around them."""
        points = np.concatenate([np.array(p, np.float64) for p in polygons]).reshape(-1, 2)
        (x_min, y_min), (x_max, y_max) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return cls(name, (x_min, y_min, x_max, y_max), polygons)

    @property
    def area(self) -> float:
        """Square pixels inside of the outline, or of the box."""
        if isinstance(self.outline, dict):
            return float(sum(self.outline["counts"][1::2]))
        if self.outline:
            return sum(_area(polygon) for polygon in self.outline)
        x_min, y_min, x_max, y_max = self.box
        return (x_max - x_min) * (y_max - y_min)


def _area(polygon: list[float]) -> float:
    x, y = np.array(polygon, np.float64).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with its objects.

    Attributes:
        id: Name of the image within the data set.
        path: Path of the image file.
        size: (height, width); zeros if the annotation does not give it.
        objects: Its objects.
        source: The file or record that annotates it, for messages.
    """

    id: str
    path: str
    size: tuple[int, int]
    objects: Sequence[AnnotatedObject]
    source: str


def to_annotations(
    name: str,
    images: Sequence[AnnotatedImage],
    faults: FaultCounts,
    *,
    label_map: LabelMap | None = None,
    outlines: bool = False,
) -> Annotations:
    """Returns images with objects as one split.

    Args:
        name: The file or list that the split was read from, for messages.
        images: The images.
        faults: Faults that the reader worked around.
        label_map: Names and ids of the classes; by default the names that occur, sorted, with the
            ids 1, 2, ...
        outlines: Whether to read the outlines, as masks of background and all classes.

    Raises:
        DataError: If there are no images or no usable outlines, or if an outline is none.
    """
    objects = [o for image in images for o in image.objects]
    if label_map is None:
        names = sorted({o.name for o in objects})
        label_map = LabelMap(tuple(names), tuple(range(1, len(names) + 1)))
    split = Annotations(
        name=name,
        image_ids=np.array([image.id for image in images], np.str_),
        files=np.array([image.path for image in images], np.str_),
        sizes=np.array([image.size for image in images], np.int64).reshape(-1, 2),
        objects=Objects.group_by_image(
            label_map,
            len(images),
            np.repeat(np.arange(len(images)), [len(image.objects) for image in images]),
            boxes=np.array([o.box for o in objects], np.float64).reshape(-1, 4),
            labels=np.array([label_map.label_of_name[o.name] for o in objects], np.int64),
            areas=np.array([o.area for o in objects], np.float64),
            difficult=np.array([o.difficult for o in objects], bool),
        ),
        faults=faults,
    )
    if outlines:
        read_unknown_sizes(split)
    split.count_bad_boxes()
    if not outlines:
        return split
    return replace(split, masks=outline_masks(split, _pack(images, split)))


def _pack(images: Sequence[AnnotatedImage], split: Annotations) -> Outlines:
    packer = OutlinePacker()
    sources = [image.source for image in images for _ in image.objects]
    try:
        for image, (height, width) in zip(images, split.sizes.tolist(), strict=True):
            for o in image.objects:
                packer.add(msgspec.json.encode(o.outline), (height, width))
        return packer.finish()
    except OutlineError as error:
        row = len(packer) if error.row is None else error.row
        raise DataError(
            f"{sources[row]}: expected outlines within the image, got {error}"
        ) from None
