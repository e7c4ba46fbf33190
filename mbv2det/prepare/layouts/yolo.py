"""YOLO's text files, with `data.yaml` or without."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from mbv2det.config import SplitConfig
from mbv2det.data.file_lists import files_below, read_list, read_text
from mbv2det.data.images import SUFFIXES
from mbv2det.data.yolo_file import read_yolo_file
from mbv2det.errors import DataError
from mbv2det.prepare.file_kinds import sampled
from mbv2det.prepare.inventory import Inventory
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.pairing import pair_by_name
from mbv2det.prepare.split_folders import describe, largest_of_each_split
from mbv2det.prepare.split_words import with_train

_LINE = re.compile(r"\d{1,6}(\.0*)?([\s,]+-?\d*\.?\d+(e[-+]?\d+)?){4,}\s*", re.IGNORECASE)
_KEYS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "_darknet.labels")


def find_yolo(inventory: Inventory) -> Iterator[Layout]:
    """Yields the layout of a data set with YOLO's text files."""
    labels = [file for file in inventory.of((".txt",)) if _is_label_name(file)]
    pairings = pair_by_name(labels, inventory.images)
    some = sampled([file for pairing in pairings for file in pairing.matches])
    are_labels = [_has_labels(inventory, file) for file in some]
    if sum(are_labels) * 2 <= len(are_labels):
        return
    described = [file for file in inventory.of((".yaml", ".yml")) if _has_names(inventory, file)]
    if len(described) > 1:
        raise DataError(
            f"expected one YAML file with the names of YOLO's classes, found "
            f"{', '.join(described[:4])}; move the others away"
        )
    if described and (layout := _of_file(inventory, described[0])) is not None:
        yield layout
        return
    chosen, reasons = largest_of_each_split(pairings)
    names = described[0] if described else _names_file(inventory)
    what = "text files with a class and a box or polygon in each line and images of the same names"
    yield Layout(
        root=inventory.root,
        format="yolo",
        splits={
            name: SplitConfig(annotations=names, images=pairing.images)
            for name, pairing in chosen.items()
        },
        boxes=True,
        masks=True,
        num_files=sum(map(len, chosen.values())),
        reasons=(
            *describe(what, chosen),
            f"names of the classes: {names}",
            *reasons,
        ),
    )


def _is_label_name(file: str) -> bool:
    return PurePosixPath(file).name.lower() not in _NAME_FILES


def _has_labels(inventory: Inventory, file: str) -> bool:
    """Returns True for a text file whose lines are those of YOLO; an empty file is one, too."""
    try:
        lines = read_text(inventory.root / file).splitlines()
    except DataError:
        return False
    return all(_LINE.fullmatch(line.strip()) for line in lines if line.strip())


def _has_names(inventory: Inventory, file: str) -> bool:
    try:
        return bool(read_yolo_file(inventory.root / file, inventory.root).names)
    except DataError:
        return False


def _of_file(inventory: Inventory, file: str) -> Layout | None:
    """Returns the layout that a `data.yaml` describes; None if its folders are not there."""
    described = read_yolo_file(inventory.root / file, inventory.root)
    images, splits, reasons = 0, {}, []
    for key, entries in described.splits.items():
        counts = [_count(inventory, entry) for entry in entries]
        if not all(counts):
            reasons.append(f"{key}: {', '.join(entries)}, where there are no images: left out")
            continue
        splits[_KEYS[key]] = SplitConfig(annotations=file, split=key)
        images += sum(counts)
        reasons.append(f"{key}: {sum(counts)} images in {', '.join(entries)}, as {file} says")
    if not splits:
        return None
    return Layout(
        root=inventory.root,
        format="yolo",
        splits=with_train(splits),
        boxes=True,
        masks=True,
        num_files=images,
        reasons=(f"{file} names {len(described.names)} classes", *reasons),
    )


def _count(inventory: Inventory, entry: str) -> int:
    """Returns the number of images of an entry: a folder, a list or one image."""
    path = inventory.root / entry
    if path.is_dir():
        return sum(1 for _ in files_below(path, SUFFIXES))
    if path.suffix.lower() == ".txt":
        return len(read_list(path)) if path.is_file() else 0
    return int(path.is_file())


def _names_file(inventory: Inventory) -> str:
    """Returns the text file of class names.

    Raises:
        DataError: If there is none.
    """
    for name in _NAME_FILES:
        for file in inventory.files:
            if PurePosixPath(file).name.lower() == name and file.endswith(".txt"):
                return file
    raise DataError(
        f"{inventory.root}: expected the names of YOLO's classes in data.yaml or classes.txt, "
        "found neither; write classes.txt with one name per line, in the order of the numbers"
    )
