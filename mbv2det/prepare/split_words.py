"""The words by which folders and files are named after splits."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TypeVar

Found = TypeVar("Found")

_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "trainval",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_ORDER = ("train", "val", "test")


def split_of(name: str) -> str | None:
    """Returns the split that a name stands for: train, val, test, trainval, or None.

    Words are separated by anything but letters: `instances_val2017.json` is val.
    """
    words = re.findall(r"[a-z]+", name.lower())
    found = [_WORDS[word] for word in words if word in _WORDS]
    return found[0] if len(set(found)) == 1 else None


def split_of_path(path: str) -> str | None:
    """Returns the split that the innermost name of a path stands for; None if none does."""
    for part in reversed(PurePosixPath(path).parts):
        split = split_of(part)
        if split is not None:
            return split
    return None


def with_train(found: Mapping[str, Found]) -> dict[str, Found]:
    """Returns what was found for each split, with something to train on.

    trainval stands for train where there is none, and the first split where there is neither.
    """
    splits = dict(found)
    whole = splits.pop("trainval", None)
    if "train" not in splits:
        first = whole if whole is not None else splits.pop(next(iter(splits)))
        splits["train"] = first
    return {name: splits[name] for name in _ORDER if name in splits}
