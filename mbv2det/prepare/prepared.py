"""A data set with its splits, and the settings that follow from it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Int64

from mbv2det.build import read_split
from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.annotations import Annotations
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.errors import DataError
from mbv2det.prepare.data_facts import (
    classes_in_images,
    has_drawn_outlines,
    mask_share,
    with_measured_sizes,
)
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.near_duplicates import groups_of
from mbv2det.prepare.splitting import choose_validation

Kind = Literal["detection", "segmentation", "joint"]

TASKS: Mapping[Kind, tuple[str, ...]] = {
    "detection": ("detection",),
    "segmentation": ("segmentation",),
    "joint": ("detection", "segmentation"),
}
_HALF = 0.5

ListWriter = Callable[[str, Sequence[str]], str]
"""Takes the name of a split and names of images; returns the path of the list."""


@dataclass(frozen=True)
class Splits:
    """The training and the validation split.

    Attributes:
        train: Annotation of the training split.
        val: Annotation of the validation split.
        data: Settings that read both.
        reasons: Lines that say how the images were divided.
    """

    train: Annotations
    val: Annotations
    data: DataConfig
    reasons: tuple[str, ...]


def choose_kind(layout: Layout, kind: Kind | None) -> tuple[Kind, str]:
    """Returns the tasks to learn, with the reason.

    Args:
        layout: The data set.
        kind: What the user wants; None to choose.

    Raises:
        DataError: If the training split cannot be read.
    """
    if kind is not None:
        return kind, "as --task says"
    if not layout.boxes:
        return "segmentation", "there are masks and no boxes"
    if not layout.masks:
        return "detection", "there are boxes and no masks"
    take_one = "--task detection or segmentation takes one"
    try:
        split = _read(layout.config(), layout.splits["train"], TASKS["joint"])
    except DataError as error:
        _read(layout.config(), layout.splits["train"], TASKS["detection"])
        if "expected outlines" in str(error):
            return "detection", "there are boxes and no outlines"
        return "detection", f"there are boxes, and masks cannot be read ({error})"
    if not isinstance(split.masks, InstanceMasks):
        return "joint", f"there are boxes and masks; {take_one}"
    if mask_share(split) < _HALF or not has_drawn_outlines(split.masks):
        return "detection", "hardly any object has an outline that says more than its box"
    return "joint", f"there are boxes and outlines; {take_one}"


def make_splits(layout: Layout, kind: Kind, seed: int, write_list: ListWriter) -> Splits:
    """Returns the splits of a data set; without a validation split, a fifth of the images is it.

    Args:
        layout: The data set.
        kind: Tasks to learn.
        seed: Seed of the division.
        write_list: Writes the image names of a split to a file, and returns its path.

    Raises:
        DataError: If a split cannot be read.
    """
    tasks = TASKS[kind]
    settings = {
        name: replace(split, list=write_list(name, layout.names[name]))
        if name in layout.names
        else split
        for name, split in layout.splits.items()
    }
    data = layout.config(**{name: split for name, split in settings.items() if name != "test"})
    whole = with_measured_sizes(_read(data, data.train, tasks))
    if "val" in layout.splits:
        val = with_measured_sizes(_read(data, data.val, tasks, "val"))
        return Splits(whole, val, data, ())
    return _divided(layout, data, whole, seed, write_list)


def _divided(
    layout: Layout, data: DataConfig, whole: Annotations, seed: int, write_list: ListWriter
) -> Splits:
    """Returns the splits of a data set that has none."""
    names = names_of(layout, whole)
    groups = groups_of(
        [whole.path(index) for index in range(len(whole))],
        [str(PurePosixPath(name).with_suffix("")) for name in names],
    )
    chosen = choose_validation(groups, classes_in_images(whole), seed)
    rows = {"train": np.flatnonzero(~chosen), "val": np.flatnonzero(chosen)}
    reasons = _division(rows["train"], rows["val"], int(groups.max()) + 1, seed)
    if not len(rows["train"]):
        rows["train"] = rows["val"]
    if len(rows["train"]) == 1:  # batch norm needs two
        rows["train"] = rows["train"].repeat(2)
        reasons.append("the only training image is listed twice: a batch needs two")
    # A list stands for VOC's own lists, and is one of a split of YOLO or CVAT.
    split = replace(data.train, split=None) if layout.format == "voc" else data.train
    train, val = (
        replace(split, list=write_list(part, [names[index] for index in rows[part]]))
        for part in ("train", "val")
    )
    data = replace(data, train=train, val=val)
    return Splits(whole.at(rows["train"]), whole.at(rows["val"]), data, tuple(reasons))


def _division(
    training: Int64[np.ndarray, " a"], validation: Int64[np.ndarray, " b"], groups: int, seed: int
) -> list[str]:
    if not len(training):
        return [
            "no validation split, and no two images that are not nearly the same: all "
            f"{len(validation)} are in both splits, and the metrics say nothing about other images"
        ]
    images = len(training) + len(validation)
    lines = [
        f"no validation split: {len(training)} images to train on and {len(validation)} to "
        f"validate on, chosen at random (seed {seed})"
    ]
    if groups == images:
        return [*lines, "no near-duplicates among the images"]
    return [
        *lines,
        f"near-duplicates and images of one source stay together: {images} images are {groups} "
        "groups",
    ]


def _read(
    data: DataConfig, split: SplitConfig, tasks: Collection[str], name: str = "train"
) -> Annotations:
    return read_split(data, split, f"data.{name}", tasks)


def names_of(layout: Layout, split: Annotations) -> list[str]:
    """Returns the names of the images as the lists of a format have them."""
    images = layout.splits["train"].images
    folder = layout.root / images if images and layout.format != "yolo" else layout.root
    if layout.format == "voc" and not images:
        folder = layout.root / "JPEGImages"
    if layout.format == "folder" and not images:
        folder = layout.root / "images"
    return [Path(file).relative_to(folder).as_posix() for file in split.files.tolist()]
