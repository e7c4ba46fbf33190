"""What one COCO annotation file says, as flat arrays: a function of its bytes alone."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from jaxtyping import Float64, Int64
from PIL import Image

from mbv2det.data.coco_outlines import OutlineError, OutlinePacker, size_of_run_lengths
from mbv2det.data.coco_records import (
    CategoryRecord,
    ImageRecord,
    ObjectRecord,
    Scalar,
    decode_records,
)
from mbv2det.data.coco_values import (
    UncertainValueError,
    describe,
    find_id,
    flag,
    number,
    plain_ids,
    whole_number,
)
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.objects import Objects
from mbv2det.data.outlines import Outlines
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

Value = TypeVar("Value")

_MAX_BOX = 1e9  # pixels
_MAX_BOX_TEXT = 1000  # bytes of one bbox
_BOX = msgspec.json.Decoder(tuple[float, float, float, float])
_NOTHING = (b"null", b"[]")


@dataclass(frozen=True)
class CocoContent:
    """The images of one annotation file, sorted by id, with their objects.

    Attributes:
        image_ids: Id of each image, as text.
        file_names: `file_name` of each image.
        sizes: Annotated (height, width) of each image; 0 where it is not annotated.
        objects: Objects, sorted by image.
        outlines: Outline of each object; None if they were not requested.
        faults: Values that were written in another way than COCO's.
    """

    image_ids: list[str]
    file_names: list[str]
    sizes: Int64[np.ndarray, "I 2"]
    objects: Objects
    outlines: Outlines | None
    faults: FaultCounts


def parse_content(path: Path, content: bytes, *, outlines: bool) -> CocoContent:
    """Reads the bytes of an annotation file.

    Args:
        path: Path of the file, for messages.
        content: Its bytes.
        outlines: Whether to read the outlines of the objects.

    Raises:
        DataError: If the file is no COCO annotation, or if an object belongs to an unknown image or
            category.
    """
    records = decode_records(path, content)
    faults = FaultCounts()
    label_map = _read_label_map(path, records.categories, faults)
    image_ids, images = _sorted_images(path, records.images, faults)
    names = [record.file_name for record in images]
    reader = _ObjectReader(path, names, faults)
    position = {id_: index for index, id_ in enumerate(image_ids)}
    image = reader.look_up(records.annotations, "image_id", position, "images")
    # Sorted by image here, so that outlines are packed in the order in which they are kept.
    order = np.argsort(image, kind="stable")
    objects, image = [records.annotations[row] for row in order.tolist()], image[order]
    reader.image = image.tolist()
    labels = reader.look_up(objects, "category_id", label_map.label_of_id, "categories")
    sizes = _read_sizes(path, images, faults)
    packed = reader.pack_outlines(objects, sizes) if outlines else None
    boxes = reader.read_boxes(objects, packed, sizes)
    areas = reader.read("area", number, objects, "a number")
    return CocoContent(
        [str(id_) for id_ in image_ids],
        names,
        sizes,
        Objects.group_by_image(
            label_map,
            len(images),
            image,
            boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            labels=labels,
            areas=_areas(areas, boxes),
            crowd=np.array(reader.read("iscrowd", flag, objects, "0 or 1"), bool),
        ),
        packed,
        faults,
    )


class _ObjectReader:
    """Reads the fields of all objects, one field at a time.

    Args:
        path: Annotation file, for messages.
        file_names: File of each image.
        faults: Where values in another type than COCO's are counted.
    """

    def __init__(self, path: Path, file_names: Sequence[str], faults: FaultCounts) -> None:
        self.path = path
        self.file_names = file_names
        self.faults = faults
        self.image: list[int] = []

    def look_up(
        self,
        records: Sequence[ObjectRecord],
        key: str,
        known: Mapping[Any, int],
        kind: str,
    ) -> Int64[np.ndarray, " N"]:
        """Returns the position of the image or category of each object."""
        positions = []
        for row, record in enumerate(records):
            value = getattr(record, key)
            # True and 1.0 are equal to 1, but another type.
            position = known.get(value) if type(value) in (int, str) else None
            if position is None:
                position = find_id(value, known)
                if position is None:
                    raise DataError(
                        f"{self.path}: {record.name}: expected {key} to be one of "
                        f"the file's {len(known)} ids of {kind}, got {describe(value)}"
                    )
                image = position if key == "image_id" else self.image[row]
                self._count(key, value, image)
            positions.append(position)
        return np.array(positions, np.int64)

    def read(
        self,
        key: str,
        convert: Callable[[Scalar], Value],
        records: Sequence[ObjectRecord],
        expected: str,
    ) -> list[Value]:
        """Returns the converted values of a field."""
        values = []
        for row, record in enumerate(records):
            value = getattr(record, key)
            try:
                values.append(convert(value))
            except UncertainValueError as fault:
                raise DataError(
                    f"{self.path}: {record.name}: expected {expected} as {key}, got {fault}"
                ) from None
            if isinstance(value, str):
                self._count(key, value, self.image[row])
        return values

    def pack_outlines(
        self, records: Sequence[ObjectRecord], sizes: Int64[np.ndarray, "I 2"]
    ) -> Outlines:
        """Returns the outlines; an image without a size gets that of its first run lengths."""
        packer = OutlinePacker()
        size_of = [(height, width) for height, width in sizes.tolist()]
        try:
            for record, image in zip(records, self.image, strict=True):
                text = memoryview(record.segmentation)
                size = size_of[image]
                if not size[0]:
                    size = size_of[image] = size_of_run_lengths(text) or size
                packer.add(text, size)
            outlines = packer.finish()
        except OutlineError as error:
            row = len(packer) if error.row is None else error.row
            height, width = size_of[self.image[row]]
            raise DataError(
                f"{self.path}: {records[row].name}: expected segmentation to be polygons "
                f"[[x, y, x, y, ...], ...] or run lengths of {height}x{width} pixels "
                f"(height x width), got {error}"
            ) from None
        sizes[:] = np.array(size_of, np.int64).reshape(-1, 2)
        return outlines

    def read_boxes(
        self,
        records: Sequence[ObjectRecord],
        outlines: Outlines | None,
        sizes: Int64[np.ndarray, "I 2"],
    ) -> Float64[np.ndarray, "N 4"]:
        """Returns x, y, width and height of each object, from its outline where it has no box."""
        boxes = np.zeros((len(records), 4), np.float64)
        for row, record in enumerate(records):
            text = bytes(record.bbox)
            try:
                boxes[row] = _BOX.decode(text) if len(text) <= _MAX_BOX_TEXT else ()
            except (ValueError, RecursionError):
                box = None
                if text in _NOTHING:
                    box = self._box_of_outline(row, record, outlines, sizes)
                    self.faults.add(
                        "objects without bbox, which is taken from the outline",
                        self.file_names[self.image[row]],
                    )
                if box is None:
                    got = text[:80].decode(errors="replace")
                    raise DataError(
                        f"{self.path}: {record.name}: expected bbox [x, y, width, height], or an "
                        f"outline to take it from, got {got}"
                    ) from None
                boxes[row] = box
        huge = np.flatnonzero((np.abs(boxes) > _MAX_BOX).any(axis=1))
        if len(huge):
            raise DataError(
                f"{self.path}: {records[huge[0]].name}: expected bbox [x, y, width, height] in "
                f"pixels, got {boxes[huge[0]].tolist()}"
            )
        return boxes

    def _box_of_outline(
        self,
        row: int,
        record: ObjectRecord,
        outlines: Outlines | None,
        sizes: Int64[np.ndarray, "I 2"],
    ) -> tuple[float, float, float, float] | None:
        image = self.image[row]
        height, width = sizes[image].tolist()
        if outlines is not None:
            return outlines.box(row, (height, width))
        text = memoryview(record.segmentation)
        packer = OutlinePacker()
        try:
            size = size_of_run_lengths(text) or (height, width)
            packer.add(text, size)
        except OutlineError:
            return None
        return packer.finish().box(0, size)

    def _count(self, key: str, value: Scalar, image: int) -> None:
        kind = "text" if isinstance(value, str) else "a number"
        kind = "a fraction" if isinstance(value, float) else kind
        self.faults.add(f"{key} written as {kind}, read as meant", self.file_names[image])


def _areas(
    areas: Sequence[float | None], boxes: Float64[np.ndarray, "N 4"]
) -> Float64[np.ndarray, " N"]:
    """Returns the annotated areas, or those of the boxes where there is none."""
    given = np.array([np.nan if area is None else area for area in areas], np.float64)
    return np.where(np.isnan(given), boxes[:, 2] * boxes[:, 3], given)


def _read_label_map(path: Path, records: Sequence[CategoryRecord], faults: FaultCounts) -> LabelMap:
    if not records:
        raise DataError(f"{path}: categories: expected at least one class, got none")
    ids = []
    for index, record in enumerate(records):
        try:
            ids.append(whole_number(record.id))
        except UncertainValueError as fault:
            raise DataError(
                f"{path}: categories[{index}].id: expected a whole number, got {fault}"
            ) from None
        if type(record.id) is not int:
            faults.add("id of a category written as text or a fraction, read as meant", path.name)
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    try:
        return LabelMap(
            tuple(str(records[i].name).strip() for i in order), tuple(ids[i] for i in order)
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _sorted_images(
    path: Path, records: Sequence[ImageRecord], faults: FaultCounts
) -> tuple[list[int | str], list[ImageRecord]]:
    """Returns ids and records, sorted by id, by which pycocotools breaks ties of equal scores."""
    try:
        ids = plain_ids([record.id for record in records])
    except UncertainValueError as fault:
        raise DataError(
            f"{path}: images: expected ids that are whole numbers, or all of them text, got {fault}"
        ) from None
    for id_, times in Counter(ids).most_common(1):
        if times > 1:
            raise DataError(f"{path}: expected unique image ids, got {id_} {times} times")
    for id_, record in zip(ids, records, strict=True):
        if type(id_) is not type(record.id):
            faults.add("id of an image written as text or a fraction", record.file_name)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[i] for i in order], [records[i] for i in order]


def _read_sizes(
    path: Path, records: Sequence[ImageRecord], faults: FaultCounts
) -> Int64[np.ndarray, "I 2"]:
    """Returns the annotated (height, width) of each image; zeros where it is not annotated."""
    sizes = np.zeros((len(records), 2), np.int64)
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    for row, record in enumerate(records):
        sides = (record.height, record.width)
        try:
            height, width = (0 if side is None else whole_number(side) for side in sides)
        except UncertainValueError as fault:
            raise DataError(
                f"{path}: {record.file_name}: expected height and width in pixels, got {fault}"
            ) from None
        if any(isinstance(side, str) for side in sides):
            faults.add("size of an image written as text", record.file_name)
        if height > 0 and width > 0:
            if height * width > limit:
                raise DataError(
                    f"{path}: {record.file_name}: expected at most {limit // 10**6} million "
                    f"pixels, got {height}x{width} (height x width)"
                )
            sizes[row] = height, width
    return sizes
