"""Faults of image and mask files, from the facts about each of them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mbv2det.checks.classes import TRAIN
from mbv2det.checks.finding import (
    DEEP,
    EMPTY_CLASS,
    EMPTY_CLASS_OF_VAL,
    LEAK,
    MASK_SIZE,
    MASK_UNUSABLE,
    OTHER_SIZE,
    REPEATED,
    ROTATED,
    TRUNCATED,
    UNREADABLE,
    Finding,
    Kind,
)
from mbv2det.checks.image_files import ImageFacts, Size
from mbv2det.data.annotations import Annotations
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.labels import BACKGROUND

UNUSABLE = (UNREADABLE, OTHER_SIZE, MASK_SIZE, MASK_UNUSABLE)
"""Kinds of files that training cannot use: `data.on_error` says what it does with them."""


def check_files(split: Annotations, facts: Sequence[ImageFacts], name: str) -> list[Finding]:
    """Finds the faults of the files of a split.

    Args:
        split: Split to check.
        facts: Facts about each of its images.
        name: Name of the split.
    """
    found = []
    for fact in facts:
        path = str(split.path(fact.index))
        found += [
            Finding(kind, name, message, file or path, "", fact.index)
            for kind, message, file in _faults_of_image(split, fact)
        ]
    return found


def _faults_of_image(split: Annotations, fact: ImageFacts) -> Iterator[tuple[Kind, str, str]]:
    """Yields kind, message and, where it is not the image, the file of each fault."""
    source = ""
    if split.masks is not None and split.masks.annotated[fact.index]:
        source = split.mask_source(fact.index)
    if fact.mask_error:
        yield MASK_UNUSABLE, _without_path(fact.mask_error, source), source
    if fact.upright_size is None or fact.stored_size is None:
        yield UNREADABLE, _without_path(fact.error, str(split.path(fact.index))), ""
        return
    annotated, used = split.size(fact.index), fact.upright_size
    if annotated not in (None, used):
        if annotated == fact.stored_size:
            used = fact.stored_size
            yield ROTATED, f"{_format(used)} as stored, {_format(fact.upright_size)} upright", ""
        else:
            yield OTHER_SIZE, _other_size(annotated, used), ""
    elif annotated is None and fact.mask_size == fact.stored_size != used:
        used = fact.stored_size
        yield ROTATED, f"{_format(used)} as stored and as its mask", ""
    if fact.mask_size not in (None, used) and not isinstance(split.masks, InstanceMasks):
        yield (
            MASK_SIZE,
            f"the mask has {_format(fact.mask_size)}, its image {_format(used)}",
            source,
        )
    if fact.is_deep:
        yield DEEP, "a channel has more than 8 bits", ""
    for fault in fact.faults:
        if fault.startswith("truncated"):
            yield TRUNCATED, fault, ""


def _other_size(annotated: Size | None, got: Size) -> str:
    hint = ": height and width are exchanged" if annotated == got[::-1] else ""
    return f"annotated {_format(annotated)}, the file has {_format(got)}{hint}"


def _format(size: Size | None) -> str:
    return "unknown" if size is None else f"{size[0]}x{size[1]} (height x width)"


def _without_path(message: str, path: str) -> str:
    return message.removeprefix(f"{path}: ")


def check_leaks(
    splits: Mapping[str, Annotations], facts: Mapping[str, Sequence[ImageFacts]]
) -> Iterator[Finding]:
    """Finds images whose decoded pixels are those of another image, in one split or in both.

    Args:
        splits: Splits by name.
        facts: Facts about the images of each.
    """
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for name, of_split in facts.items():
        for fact in of_split:
            if fact.digest:
                places[fact.digest].append((name, fact.index))
    for same in places.values():
        if len(same) < 2:
            continue
        first_name, first_index = same[0]
        first = f"{first_name}: {splits[first_name].path(first_index)}"
        for name, index in same[1:]:
            file = str(splits[name].path(index))
            kind = REPEATED if name == first_name else LEAK
            yield Finding(kind, name, f"equal to {first}, pixel by pixel", file, "", index)


def check_labels(split: Annotations, facts: Sequence[ImageFacts], name: str) -> Iterator[Finding]:
    """Finds the labels of masks that no pixel has.

    Args:
        split: Split with masks.
        facts: Facts about each of its images, with decoded masks.
        name: Name of the split.
    """
    assert split.masks is not None
    counts = np.zeros(256, np.int64)
    for fact in facts:
        if fact.label_counts is not None:
            counts += fact.label_counts
    kind = EMPTY_CLASS if name == TRAIN else EMPTY_CLASS_OF_VAL
    for label, class_name in enumerate(split.masks.label_map.names):
        if not counts[label] and class_name != BACKGROUND:
            yield Finding(kind, name, f"no pixel of label {class_name!r}", split.name)
