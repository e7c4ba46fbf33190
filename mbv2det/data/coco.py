"""COCO's instances JSON."""

import json
import math
import reprlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Float64, Int64

from mbv2det.data.annotations import Annotations, Objects
from mbv2det.data.files import existing_folder, listing
from mbv2det.data.masks import InstanceMasks
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap, with_background

_TRIANGLE = 6  # numbers in the smallest polygon
_FAR = 1e5  # pixels


def read_coco(annotations: Path, images: Path, *, masks: bool = False) -> Annotations:
    """Reads one split; images without objects are kept, category ids may have gaps.

    Args:
        annotations: The JSON file.
        images: The folder that its `file_name`s are relative to.
        masks: Whether to keep the instances' outlines, as masks of background and all categories.

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
    sizes = np.array(
        [(r.get("height") or 0, r.get("width") or 0) for r in records], np.int64
    ).reshape(-1, 2)
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in objects], bool)[order]
    starts = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    found = Annotations(
        name=str(annotations),
        image_ids=np.array([str(r["id"]) for r in records]),
        files=np.array([str(images / r["file_name"]) for r in records]),
        sizes=sizes,
        objects=Objects(
            labels=labels,
            annotated=np.ones(len(records), bool),
            starts=starts,
            boxes=boxes,
            classes=classes[order],
            areas=np.array(areas, np.float64)[order],
            crowd=crowd,
            difficult=np.zeros(len(objects), bool),
        ),
    )
    found.report_boxes()
    if not masks:
        return found
    if not sizes.all():
        raise DataError(
            f"{annotations}: expected height and width of every image, got none for "
            f"{records[int((sizes == 0).any(axis=1).argmax())]['file_name']}"
        )
    codes = [_outline(annotations, objects[row], sizes[image[row]]) for row in order]
    if not any(codes):
        raise DataError(f"{annotations}: expected outlines (segmentation), got none")
    instances = InstanceMasks(
        labels=LabelMap.of_masks(with_background(labels.names)),
        class_names=labels.names,
        sizes=sizes,
        starts=starts,
        classes=classes[order],
        crowd=crowd,
        codes=np.frombuffer(b"".join(codes), np.uint8),
        code_starts=np.concatenate([[0], np.cumsum([len(c) for c in codes])]).astype(np.int64),
    )
    return replace(found, masks=instances)


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


def _outline(path: Path, record: dict[str, Any], size: Int64[np.ndarray, "2"]) -> bytes:
    """An instance's compressed run lengths; none where it has no outline."""
    outline = record.get("segmentation")
    if not outline:
        return b""
    height, width = (int(side) for side in size)
    if isinstance(outline, list) and all(map(_is_polygon, outline)):
        polygons = [polygon for polygon in outline if len(polygon) >= _TRIANGLE]
        codes = rle.frPyObjects(polygons, height, width) if polygons else []
        return bytes(rle.merge(codes)["counts"]) if codes else b""
    if isinstance(outline, dict) and outline.get("size") == [height, width]:
        counts = outline.get("counts")
        runs = _run_lengths(counts) if isinstance(counts, str) else counts
        if _cover(runs, height * width):
            return bytes(rle.frPyObjects(outline | {"counts": runs}, height, width)["counts"])
    raise DataError(
        f"{path}: annotation {record.get('id')}: expected as segmentation polygons "
        f"[[x, y, x, y, ...], ...] or run lengths of {height}x{width} pixels (height x width), "
        f"got {reprlib.repr(outline)}"
    )


def _is_polygon(value: Any) -> bool:
    """Pairs of numbers; of far ones, the rasteriser would not come to an end."""
    return (
        isinstance(value, list)
        and len(value) % 2 == 0
        and all(_is_number(number) and abs(number) < _FAR for number in value)
    )


def _cover(runs: Any, pixels: int) -> bool:
    """Whether they are run lengths of a mask of so many pixels."""
    return (
        isinstance(runs, list)
        and all(isinstance(run, int) and run >= 0 for run in runs)
        and sum(runs) == pixels
    )


def _run_lengths(code: str) -> list[int]:
    """Reads COCO's compressed run lengths, whatever is in the text.

    Base 32, lowest digits first; from the fourth on, each is less the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            signed = value - (1 << shift) if digit & 16 else value
            runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
