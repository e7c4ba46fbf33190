"""COCO's instances JSON."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mbv2det.data.annotations import Annotations
from mbv2det.data.files import existing_folder, listing
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap


def read_coco(annotations: Path, images: Path) -> Annotations:
    """Reads one split; images without objects are kept, category ids may have gaps.

    Args:
        annotations: The JSON file.
        images: The folder that its `file_name`s are relative to.

    Raises:
        DataError: For a file that is no COCO annotation, an object of an unknown image or
            category, or a missing image file.
    """
    content = _load(annotations)
    labels = _read_labels(annotations, content["categories"])
    _check_images(annotations, content["images"], images)
    # In the order of their ids, by which pycocotools breaks ties between equal scores.
    records = sorted(content["images"], key=lambda record: record["id"])
    index_of_id = {record["id"]: index for index, record in enumerate(records)}
    objects = content["annotations"]
    image = np.array([_find(annotations, a, "image_id", index_of_id) for a in objects], np.int64)
    classes = np.array(
        [_find(annotations, a, "category_id", labels.label_of_id) for a in objects], np.int64
    )
    xywh = np.array([_box(annotations, a) for a in objects], np.float64).reshape(-1, 4)
    order = np.argsort(image, kind="stable")
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)[order]
    counts = np.bincount(image, minlength=len(records))
    areas = [_area(annotations, a, box) for a, box in zip(objects, xywh, strict=True)]
    found = Annotations(
        name=str(annotations),
        labels=labels,
        image_ids=np.array([str(r["id"]) for r in records]),
        files=np.array([str(images / r["file_name"]) for r in records]),
        sizes=np.array(
            [(r.get("height") or 0, r.get("width") or 0) for r in records], np.int64
        ).reshape(-1, 2),
        starts=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        boxes=boxes,
        classes=classes[order],
        areas=np.array(areas, np.float64)[order],
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in objects], bool)[order],
        difficult=np.zeros(len(objects), bool),
    )
    found.report_boxes()
    return found


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


def _read_labels(path: Path, records: list[dict[str, Any]]) -> LabelMap:
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
            f"{folder}: {len(missing)} of the {len(records)} images that {path} lists are "
            f"missing, {missing[0]} first"
        )


def _find(path: Path, record: dict[str, Any], key: str, known: dict[Any, int]) -> int:
    value = record.get(key)
    if not isinstance(value, int | str) or value not in known:
        raise DataError(
            f"{path}: annotation {record.get('id')} has {key} {value!r}, "
            f"which is not among the file's {len(known)}"
        )
    return known[value]


def _box(path: Path, record: dict[str, Any]) -> list[float]:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(
            f"{path}: annotation {record.get('id')}: expected bbox [x, y, width, height], got {box}"
        )
    return [float(value) for value in box]


def _area(path: Path, record: dict[str, Any], box: Float64[np.ndarray, "4"]) -> float:
    """The record's own, or its box's where it has none."""
    area = record.get("area", float(box[2] * box[3]))
    if not _is_number(area):
        raise DataError(
            f"{path}: annotation {record.get('id')}: expected a number as area, got {area!r}"
        )
    return float(area)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
