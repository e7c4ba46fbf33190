"""The checks of one split that need no image file, and those of all its files."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mbv2det.checks.boxes import check_boxes
from mbv2det.checks.classes import check_classes
from mbv2det.checks.finding import (
    HIDDEN_FILES,
    LEFT_OUT_BY_SETTINGS,
    WORKED_AROUND,
    Finding,
)
from mbv2det.data.annotations import Annotations
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.images import SUFFIXES
from mbv2det.errors import DataError

# Phrases of readers about what the settings ask for.
_OF_SETTINGS = ("objects of other classes", "set of mask labels", "images without a mask")
_DATA_SUFFIXES = (*SUFFIXES, ".xml", ".json", ".txt")


def check_objects(split: Annotations, name: str) -> Iterator[Finding]:
    """Finds the faults of classes and boxes.

    Args:
        split: Split to check.
        name: Name of the split.
    """
    if split.objects is not None:
        yield from check_classes(split, name)
        yield from check_boxes(split, name)


def check_repairs(split: Annotations, name: str) -> Iterator[Finding]:
    """Finds what the reader worked around, but for boxes, which are checked one by one.

    Args:
        split: Split to check, with the sizes that the reader knew.
        name: Name of the split.
    """
    of_boxes: set[str] = set()
    if split.objects is not None:
        again = replace(split, faults=FaultCounts())
        with contextlib.suppress(DataError):  # boxes in fractions, which are found one by one
            again.count_bad_boxes()
        of_boxes = set(again.faults.files)
    for phrase, files in split.faults.files.items():
        if phrase in of_boxes:
            continue
        kind = LEFT_OUT_BY_SETTINGS if phrase.startswith(_OF_SETTINGS) else WORKED_AROUND
        for file in files:
            # Each phrase is a kind of its own: readers of new formats have new phrases.
            yield Finding(replace(kind, name=phrase), name, phrase, file)


def with_sizes(split: Annotations, sizes: list[tuple[int, int]]) -> Annotations:
    """Returns the split with other sizes of its images, such as measured ones."""
    return replace(split, sizes=np.array(sizes, np.int64).reshape(-1, 2))


def check_hidden_files(root: Path) -> Iterator[Finding]:
    """Finds hidden images and annotations below a folder, as macOS and notebooks leave them."""
    for parent, folders, files in os.walk(root):
        for folder in [folder for folder in folders if folder.startswith(".")]:
            folders.remove(folder)
            path = Path(parent) / folder
            if any(file.lower().endswith(SUFFIXES) for file in os.listdir(path)):
                yield Finding(HIDDEN_FILES, "data", "a hidden folder of images", f"{path}/")
        for file in sorted(files):
            if file.startswith(".") and file.lower().endswith(_DATA_SUFFIXES):
                yield Finding(HIDDEN_FILES, "data", "a hidden file", str(Path(parent) / file))
