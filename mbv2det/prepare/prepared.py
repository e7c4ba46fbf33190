"""A data set with its splits, and the settings that follow from it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from mbv2det.build import read_split
from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.annotations import Annotations
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.errors import DataError
from mbv2det.prepare.data_facts import (
    classes_in_images,
    has_drawn_outlines,
    image_indices,
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


@dataclass(frozen=True)
class Splits:
    """The training and the validation split.

    Attributes:
        train: Annotation of the training split.
        val: Annotation of the validation split.
        data: Settings that read both.
        lists: Image names of split lists to be written, by name of the split; empty if the data set
            has splits.
        reasons: Lines that say how the images were divided.
    """

    train: Annotations
    val: Annotations
    data: DataConfig
    lists: Mapping[str, Sequence[str]]
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


def make_splits(layout: Layout, kind: Kind, seed: int, folder: Path, name: str) -> Splits:
    """Returns the splits of a data set; without a validation split, a fifth of the images is it.

    Args:
        layout: The data set.
        kind: Tasks to learn.
        seed: Seed of the division.
        folder: Where lists will be written.
        name: What the names of the lists start with.

    Raises:
        DataError: If a split cannot be read.
    """
    data, tasks = layout.config(), TASKS[kind]
    whole = with_measured_sizes(_read(data, layout.splits["train"], tasks))
    if "val" in layout.splits:
        val = with_measured_sizes(_read(data, layout.splits["val"], tasks, "val"))
        return Splits(whole, val, data, {}, ())
    names = names_of(layout, whole)
    groups = groups_of(
        [whole.path(index) for index in range(len(whole))],
        [str(PurePosixPath(name).with_suffix("")) for name in names],
    )
    chosen = choose_validation(groups, classes_in_images(whole), seed)
    training, validation = image_indices(chosen)
    if not len(training):
        training = validation
    parts = {"train": training, "val": validation}
    lists = {part: [names[index] for index in rows] for part, rows in parts.items()}
    listed = {
        part: replace(layout.splits["train"], list=str(folder / f"{name}_{part}.txt"))
        for part in parts
    }
    if layout.format == "voc":
        listed = {part: replace(split, split=None) for part, split in listed.items()}
    return Splits(
        whole.at(training),
        whole.at(validation),
        layout.config(**listed),
        lists,
        tuple(_division(len(whole), len(training), len(validation), int(groups.max()) + 1, seed)),
    )


def _division(images: int, training: int, validation: int, groups: int, seed: int) -> list[str]:
    if training + validation > images:
        return [
            f"no validation split, and only {images} image or group of near-duplicates: both "
            "splits are the same, and the metrics say nothing about other images"
        ]
    together = images - groups
    return [
        f"no validation split: {training} images to train on and {validation} to validate on, "
        f"chosen at random (seed {seed})",
        f"near-duplicates and images of one source stay together: {groups} groups of {images} "
        f"images"
        if together
        else "no near-duplicates among the images",
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
