"""COCO's JSON annotation of instances."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mbv2det.data.annotations import Annotations
from mbv2det.data.coco_outlines import encode_outline, is_number
from mbv2det.data.file_lists import existing_folder, listing
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.objects import Objects
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap, with_background


def read_coco(annotations: Path, images: Path, *, masks: bool = False) -> Annotations:
    """Reads one split; images without objects are kept, category ids may have gaps.

    Args:
        annotations: JSON file.
        images: Folder that the file's `file_name` entries are relative to.
        masks: Whether to also read the outlines of the instances, as masks of background and all
            categories.

    Raises:
        DataError: If the file is not a COCO annotation, if an object belongs to an unknown image or
            category, or if an image file is missing.
    """
    content = _load(annotations)
    label_map = _read_label_map(annotations, content["categories"])
    _check_images(annotations, content["images"], images)
    # Sorted by id, by which pycocotools breaks ties between equal scores.
    records = sorted(content["images"], key=lambda record: record["id"])
    index_of_id = {record["id"]: index for index, record in enumerate(records)}
    image = np.array(
        [_look_up(annotations, o, "image_id", index_of_id) for o in content["annotations"]],
        np.int64,
    )
    split = Annotations(
        name=str(annotations),
        image_ids=np.array([str(record["id"]) for record in records]),
        files=np.array([str(images / record["file_name"]) for record in records]),
        sizes=np.array(
            [(record.get("height") or 0, record.get("width") or 0) for record in records], np.int64
        ).reshape(-1, 2),
        objects=_read_objects(annotations, content["annotations"], image, label_map, len(records)),
    )
    split.count_bad_boxes()
    if not masks:
        return split
    return replace(split, masks=_read_masks(annotations, content["annotations"], image, split))


def _read_objects(
    path: Path,
    records: list[dict[str, Any]],
    image: Int64[np.ndarray, " N"],
    label_map: LabelMap,
    num_images: int,
) -> Objects:
    labels = [_look_up(path, record, "category_id", label_map.label_of_id) for record in records]
    xywh = np.array([_read_box(path, record) for record in records], np.float64).reshape(-1, 4)
    areas = [_read_area(path, record, box) for record, box in zip(records, xywh, strict=True)]
    return Objects.group_by_image(
        label_map,
        num_images,
        image,
        boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=np.array(labels, np.int64),
        areas=np.array(areas, np.float64),
        crowd=np.array([bool(record.get("iscrowd", 0)) for record in records], bool),
    )


def _read_masks(
    path: Path, records: list[dict[str, Any]], image: Int64[np.ndarray, " N"], split: Annotations
) -> InstanceMasks:
    """Reads the outlines of the objects, in the order of `split.objects`."""
    objects, sizes = split.objects, split.sizes
    assert objects is not None
    if not sizes.all():
        unknown = int((sizes == 0).any(axis=1).argmax())
        raise DataError(
            f"{path}: expected height and width of every image, got none for {split.path(unknown)}"
        )
    codes = [
        encode_outline(path, records[row], sizes[image[row]])
        for row in np.argsort(image, kind="stable")
    ]
    if not any(codes):
        raise DataError(f"{path}: expected outlines (segmentation), got none")
    class_names = objects.label_map.names
    return InstanceMasks(
        label_map=LabelMap.of_masks(with_background(class_names)),
        class_names=class_names,
        sizes=sizes,
        starts=objects.starts,
        classes=objects.labels,
        crowd=objects.crowd,
        codes=np.frombuffer(b"".join(codes), np.uint8),
        code_starts=np.concatenate([[0], np.cumsum([len(c) for c in codes])]).astype(np.int64),
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: expected a COCO annotation file, found none")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, got {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: expected COCO's keys, got no list called {key!r}")
    return content


def _read_label_map(path: Path, records: list[dict[str, Any]]) -> LabelMap:
    for record in records:
        if not isinstance(record.get("id"), int) or "name" not in record:
            raise DataError(f"{path}: expected id and name of every category, got {record}")
    records = sorted(records, key=lambda record: record["id"])
    try:
        return LabelMap(tuple(str(r["name"]) for r in records), tuple(r["id"] for r in records))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _check_images(path: Path, records: list[dict[str, Any]], folder: Path) -> None:
    for record in records:
        if "id" not in record or "file_name" not in record:
            raise DataError(f"{path}: expected id and file_name of every image, got {record}")
    for id_, times in Counter(record["id"] for record in records).items():
        if times > 1:
            raise DataError(f"{path}: expected unique image ids, got {id_} {times} times")
    existing_folder(folder)
    present = listing(folder)
    missing = [r["file_name"] for r in records if r["file_name"] not in present]
    missing = [name for name in missing if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: expected the {len(records)} images that {path} lists, "
            f"{len(missing)} are missing; the first is {missing[0]}"
        )


def _look_up(path: Path, record: dict[str, Any], key: str, known: dict[Any, int]) -> int:
    value = record.get(key)
    if not isinstance(value, int | str) or value not in known:
        raise DataError(
            f"{path}: annotation {record.get('id')}: expected {key} to be one of "
            f"the file's {len(known)} ids, got {value!r}"
        )
    return known[value]


def _read_box(path: Path, record: dict[str, Any]) -> list[float]:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise DataError(
            f"{path}: annotation {record.get('id')}: expected bbox [x, y, width, height], got {box}"
        )
    return [float(value) for value in box]


def _read_area(path: Path, record: dict[str, Any], box: Float64[np.ndarray, "4"]) -> float:
    """Returns the area field of an object, or the area of its box where it has no such field."""
    area = record.get("area", float(box[2] * box[3]))
    if not is_number(area):
        raise DataError(
            f"{path}: annotation {record.get('id')}: expected a number as area, got {area!r}"
        )
    return float(area)
