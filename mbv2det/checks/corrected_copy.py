"""A copy of a data set without what is certainly wrong; the original is only read.

- Boxes are clipped to their image; boxes without an area, inverted, outside or twice are left out.
- Images that training cannot use, and truncated ones, are left out with their objects.
- Classes that differ only in spelling become one, named as most objects are.
- All else is left as it is: which of two splits an image belongs to, for instance, is not certain.

Boxes are written as COCO's JSON, masks as index images. Image files are hard links where the file
system allows it, else copies.
"""

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mbv2det.atomic_write import write_json
from mbv2det.checks.boxes import are_fractions, box_faults, describe_object, looks_like_corners
from mbv2det.checks.classes import same_names
from mbv2det.checks.files import UNUSABLE
from mbv2det.checks.finding import REACHING_OUT, TRUNCATED, Finding
from mbv2det.checks.report import Report
from mbv2det.data.annotations import Annotations
from mbv2det.data.objects import clip
from mbv2det.drawing import index_image
from mbv2det.errors import ConfigError, DataError
from mbv2det.labels import LabelMap

CHANGES = "changes.txt"
_IMAGES, _MASKS = "images", "masks"


@dataclass
class CorrectedCopy:
    """What was written.

    Attributes:
        settings: Settings of a command that reads the copy, without the configuration.
        changes: A line for each change.
    """

    settings: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def write_corrected_copy(report: Report, out: Path) -> CorrectedCopy:
    """Writes the splits of a report to `out`, with the list of changes in `changes.txt`.

    Args:
        report: Report of the data set.
        out: Folder that does not exist yet, or is empty.

    Raises:
        ConfigError: If the folder has files, or if a split has boxes and masks.
        DataError: If a split could not be read, or if no box of it is in pixels.
    """
    _refuse_unfit(report, out)
    copy = CorrectedCopy([f"--data.root={out}"])
    with_boxes = any(split.objects is not None for split in report.splits.values())
    copy.settings.append(f"--data.format={'coco' if with_boxes else 'folder'}")
    names = merged_names(list(report.splits.values()))
    for old, new in names.items():
        if old != new:
            copy.changes.append(f"class {old!r} renamed to {new!r}")
    for name, split in report.splits.items():
        folder = out / name
        kept = _kept_images(report, name, copy.changes)
        files = _link_images(split, kept, folder / _IMAGES)
        copy.settings.append(f"--data.{name}.images={name}/{_IMAGES}")
        if with_boxes:
            content = _coco(split, files, names, copy.changes)
            write_json(out / f"{name}.json", content)
            copy.settings.append(f"--data.{name}.annotations={name}.json")
        else:
            _write_masks(split, files, folder / _MASKS)
            copy.settings.append(f"--data.{name}.masks={name}/{_MASKS}")
    if not with_boxes:
        copy.settings += _mask_settings(next(iter(report.splits.values())))
    (out / CHANGES).write_text("".join(f"{line}\n" for line in copy.changes))
    return copy


def merged_names(splits: Sequence[Annotations]) -> dict[str, str]:
    """Returns the new name of each class of some splits, in the order of the classes."""
    counts: Counter[str] = Counter()
    for split in splits:
        if split.objects is not None:
            class_names = split.objects.label_map.names
            per_label = np.bincount(split.objects.labels, minlength=len(class_names))
            counts.update(dict(zip(class_names, per_label.tolist(), strict=True)))
    new_names = {name: name for name in counts}
    for group in same_names(list(counts)):
        most = max(group, key=lambda name: counts[name])
        new_names.update(dict.fromkeys(group, most))
    return new_names


def _refuse_unfit(report: Report, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--fix: expected a new folder, got {out}, which exists")
    if len(report.splits) < 2:
        raise DataError("--fix: expected two splits that can be read; correct the annotation first")
    for name, split in report.splits.items():
        if split.objects is not None and split.masks is not None:
            raise ConfigError(
                f"--fix: expected boxes or masks, got both in {name}; check one task at a time: "
                "--heads.segmentation=null or --heads.detection=null"
            )
        if split.objects is not None and (are_fractions(split) or looks_like_corners(split)):
            raise DataError(f"--fix: {name}: expected boxes in pixels; correct {split.name} first")


def _kept_images(report: Report, name: str, changes: list[str]) -> list[int]:
    """Returns the indices of the images that are copied; adds the others to the changes."""
    left_out: dict[int, Finding] = {}
    for finding in report.findings:
        if finding.split == name and finding.kind in (*UNUSABLE, TRUNCATED):
            left_out.setdefault(finding.index, finding)
    split = report.splits[name]
    for index, finding in left_out.items():
        changes.append(f"{name}: {split.path(index)}: left out: {finding.message}")
    return [index for index in range(len(split)) if index not in left_out]


def _link_images(split: Annotations, kept: Sequence[int], folder: Path) -> dict[int, str]:
    """Links or copies images into a folder; returns their names there by index."""
    folder.mkdir(parents=True)
    names: dict[int, str] = {}
    taken: set[str] = set()
    for index in kept:
        source = split.path(index)
        # Masks are paired with images by the name without its suffix.
        name = source.name if source.stem not in taken else f"{source.stem}_{index}{source.suffix}"
        taken.add(Path(name).stem)
        names[index] = name
        try:
            os.link(source.resolve(), folder / name)
        except OSError:
            shutil.copy2(source, folder / name)
    return names


def _coco(
    split: Annotations, files: Mapping[int, str], names: Mapping[str, str], changes: list[str]
) -> dict[str, Any]:
    """Returns the content of COCO's JSON for the images of a split that are kept."""
    categories = {name: id_ for id_, name in enumerate(dict.fromkeys(names.values()), start=1)}
    images = [
        {"id": index + 1, "file_name": file, "height": height, "width": width}
        for index, file in files.items()
        for height, width in [(int(side) for side in split.sizes[index])]
    ]
    return {
        "images": images,
        "annotations": _coco_objects(split, files, names, categories, changes),
        "categories": [{"id": id_, "name": name} for name, id_ in categories.items()],
    }


def _coco_objects(
    split: Annotations,
    files: Mapping[int, str],
    names: Mapping[str, str],
    categories: Mapping[str, int],
    changes: list[str],
) -> list[dict[str, Any]]:
    """Returns COCO's records of the objects that are kept; adds the others to the changes."""
    objects = split.objects
    assert objects is not None
    faults = box_faults(split)
    image, written = objects.image, []
    for row in range(len(objects)):
        index = int(image[row])
        if index not in files:
            continue
        found = [kind for kind, rows in faults.items() if rows[row]]
        where = f"{split.path(index)}: {describe_object(split, row)}"
        if [kind for kind in found if kind != REACHING_OUT]:
            changes.append(f"{where}: left out: {found[0].name}")
            continue
        if found:
            changes.append(f"{where}: clipped")
        height, width = (int(side) for side in split.sizes[index])
        x_min, y_min, x_max, y_max = clip(objects.boxes[row : row + 1], (height, width))[0].tolist()
        area = (x_max - x_min) * (y_max - y_min)
        written.append(
            {
                "id": row + 1,
                "image_id": index + 1,
                "category_id": categories[names[objects.label_map.names[objects.labels[row]]]],
                "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                "area": min(float(objects.areas[row]), area),
                "iscrowd": int(objects.ignore[row]),
            }
        )
    return written


def _write_masks(split: Annotations, files: Mapping[int, str], folder: Path) -> None:
    """Writes masks whose values are the labels 0, 1, ... and 255 for ignored pixels."""
    assert split.masks is not None
    folder.mkdir()
    labels = LabelMap.of_masks(split.masks.label_map.names)
    for index, file in files.items():
        mask = split.mask(index)
        assert mask is not None
        index_image(mask, labels).save(folder / f"{Path(file).stem}.png")


def _mask_settings(split: Annotations) -> list[str]:
    assert split.masks is not None
    names = ",".join(split.masks.label_map.names)
    return [f"--data.classes=[{names}]", "--data.mask_classes=null", "--data.mask_values=null"]
