"""Faults of classes: names, numbers of objects, and what two splits have in common."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from mbv2det.checks.finding import (
    ALL_CROWD,
    CLASS_COUNTS,
    EMPTY_CLASS,
    EMPTY_CLASS_OF_VAL,
    EMPTY_IMAGES,
    NO_OBJECTS,
    SAME_NAME,
    UNKNOWN_CLASS,
    Finding,
)
from mbv2det.data.annotations import Annotations
from mbv2det.labels import LabelMap

TRAIN = "train"


def check_classes(split: Annotations, name: str) -> Iterator[Finding]:
    """Finds the faults of the classes of a split, and counts its objects.

    Args:
        split: Split with objects.
        name: Name of the split.
    """
    objects = split.objects
    assert objects is not None
    names = objects.label_map.names
    for twins in same_names(names):
        shown = ", ".join(repr(twin) for twin in twins)
        yield Finding(SAME_NAME, name, f"classes {shown}", split.name)
    if not len(objects):
        yield Finding(NO_OBJECTS, name, f"no objects in {len(split)} images", split.name)
        return
    if objects.crowd.all():
        yield Finding(ALL_CROWD, name, f"all {len(objects)} objects have iscrowd 1", split.name)
    counts = np.bincount(objects.labels, minlength=len(names))
    kind = EMPTY_CLASS if name == TRAIN else EMPTY_CLASS_OF_VAL
    for label in np.flatnonzero(counts == 0):
        yield Finding(kind, name, f"no object of class {names[label]!r}", split.name)
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{names[label]} {counts[label]}" for label in order)
    yield Finding(CLASS_COUNTS, name, f"{len(objects)} objects in {len(split)} images: {shown}")
    empty = int(((np.diff(objects.starts) == 0) & objects.annotated).sum())
    if empty:
        yield Finding(EMPTY_IMAGES, name, f"{empty} of {len(split)} images")


def check_unknown_classes(
    known: LabelMap, split: Annotations, own: LabelMap, name: str
) -> Iterator[Finding]:
    """Finds the classes of a split that the training split does not have.

    Args:
        known: Classes of the training split.
        split: The other split.
        own: Classes of the other split.
        name: Name of the other split.
    """
    for class_name in own.names:
        if known.find(class_name) is None:
            message = f"class {class_name!r} is not among those of train"
            yield Finding(UNKNOWN_CLASS, name, message, split.name)


def same_names(names: Sequence[str]) -> list[list[str]]:
    """Returns the groups of names that differ only by case, spaces, hyphens or underscores."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[re.sub(r"[\s_-]+", " ", name).strip().casefold()].append(name)
    return [group for group in groups.values() if len(group) > 1]
