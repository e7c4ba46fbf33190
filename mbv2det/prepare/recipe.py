"""The configuration of a prepared data set: a shipped one, with what follows from the data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from mbv2det.build import build_preprocess
from mbv2det.config import DataConfig
from mbv2det.data.annotations import Annotations
from mbv2det.data.statistics import network_boxes
from mbv2det.prepare.choices import (
    Choice,
    choose_batch_size,
    choose_epochs,
    choose_scales,
    choose_side,
    describe_classes,
)
from mbv2det.prepare.config_text import ConfigText
from mbv2det.prepare.data_facts import counts_of, median_longer_side
from mbv2det.prepare.prepared import Kind, Splits
from mbv2det.preprocess import Preprocessor

BASES: Mapping[Kind, str] = {
    "detection": "ssdlite_voc",
    "segmentation": "deeplabv3_voc",
    "joint": "joint_voc",
}
_NETWORKS: Mapping[Kind, str] = {
    "detection": "SSDLite",
    "segmentation": "DeepLabv3",
    "joint": "SSDLite and DeepLabv3",
}
# Settings that the shipped configuration keeps; all others of its data are about other data.
_KEPT = ("image_size", "resize", "batch_size", "num_workers")
_VALIDATIONS = 6  # of a training, as the shipped configurations have


@dataclass(frozen=True)
class Recipe:
    """A configuration and why it is as it is.

    Attributes:
        text: The YAML file.
        lines: What was chosen, for the user to read.
        warnings: What the user should know about the data.
    """

    text: str
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def write_recipe(
    base: str,
    kind: Kind,
    why_kind: str,
    splits: Splits,
    header: list[str],
    *,
    weights: str | None = None,
    skip: bool = False,
) -> Recipe:
    """Returns the configuration of a data set.

    Args:
        base: Text of the shipped configuration.
        kind: Tasks to learn.
        why_kind: Why these.
        splits: The data set.
        header: Lines about the file, above those about the data.
        weights: Weights of the backbone to start from.
        skip: Whether the training leaves out files that cannot be used.
    """
    text = ConfigText(base)
    counts, unit = counts_of(splits.train)
    classes, warnings = describe_classes(counts, counts_of(splits.val)[0], unit)
    side = _choose_side(splits.train, kind)
    default_batch = text.value("data.batch_size")
    batch = choose_batch_size(len(splits.train), default_batch)
    epochs = choose_epochs(len(splits.train), batch.value, text.value("trainer.max_epochs"))
    _set_data(text, splits.data, side, batch, skip)
    lines = [
        f"task: {kind} ({_NETWORKS[kind]}): {why_kind}",
        classes,
        f"image_size: {side.value}: {side.reason}",
        f"batch_size: {batch.value}: {batch.reason}",
        f"max_epochs: {epochs.value}: {epochs.reason} steps",
    ]
    if kind != "segmentation":
        lines.append(_set_scales(text, splits, side.value))
    if batch.value != default_batch:
        rate = round(text.value("optim.lr") * batch.value / default_batch, 6)
        text.set("optim.lr", rate, f"for {batch.value} images a step")
    text.set("trainer.max_epochs", epochs.value, epochs.reason + " steps")
    every = max(1, epochs.value // _VALIDATIONS)
    text.set("trainer.check_val_every_n_epoch", every)
    if weights is not None:
        text.set("backbone.weights", weights)
    text.replace_header([*header, "", *(f"  {line}" for line in (*lines[:2], *warnings))])
    return Recipe(str(text), tuple(lines), tuple(warnings))


def _choose_side(train: Annotations, kind: Kind) -> Choice[int]:
    longest = median_longer_side(train)
    boxes, sizes = np.zeros((0, 4)), np.zeros((0, 2))
    if train.objects is not None:
        used = ~train.objects.ignore
        boxes = train.objects.boxes[used]
        sizes = train.sizes[train.objects.image][used].astype(np.float64)
        known = (sizes > 0).all(axis=1)
        boxes, sizes = boxes[known], sizes[known]
    return choose_side(boxes, sizes, longest, masks=kind != "detection")


def _set_data(
    text: ConfigText, data: DataConfig, side: Choice[int], batch: Choice[int], skip: bool
) -> None:
    """Replaces the section of the data."""
    resize, workers = text.value("data.resize"), text.value("data.num_workers")
    text.drop("data", keep=())
    text.set("data.format", data.format)
    text.set("data.root", data.root)
    for name in ("train", "val"):
        split = {key: v for key, v in asdict(getattr(data, name)).items() if v is not None}
        text.set(f"data.{name}", split)
    for key, value in _other_settings(data).items():
        text.set(f"data.{key}", value)
    text.set("data.image_size", side.value, side.reason)
    text.set("data.resize", resize)
    text.set("data.batch_size", batch.value, batch.reason)
    text.set("data.num_workers", workers)
    if skip:
        text.set("data.on_error", "skip", "files that cannot be used are left out, and counted")


def _other_settings(data: DataConfig) -> dict[str, Any]:
    """Returns the settings of the data that differ from their defaults, classes among them."""
    own = ("format", "root", "train", "val", *_KEPT)
    settings = {f.name: getattr(data, f.name) for f in fields(data) if f.name not in own}
    defaults = asdict(DataConfig())
    return {
        key: value for key, value in settings.items() if key == "classes" or value != defaults[key]
    }


def _set_scales(text: ConfigText, splits: Splits, side: int) -> str:
    """Sets the scales of the anchors, if they are not the defaults; returns a line about them."""
    data = DataConfig(image_size=side, resize=text.value("data.resize"))
    preprocessor = Preprocessor(build_preprocess(data))
    scales = choose_scales(network_boxes(splits.train, preprocessor), data.size)
    if scales.value is not None:
        low, high = scales.value
        text.set("heads.detection.min_scale", low, scales.reason)
        text.set("heads.detection.max_scale", high)
    return f"anchors: {scales.reason}"
