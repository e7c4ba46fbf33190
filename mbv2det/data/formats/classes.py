"""The configured classes of a split whose masks, if any, are drawn from the outlines of objects."""

import re
from dataclasses import replace
from typing import Any

import numpy as np

from mbv2det.config import DataConfig
from mbv2det.data.annotations import Annotations
from mbv2det.data.formats.data_format import SplitRequest
from mbv2det.data.mask_reading import Color, MaskReading
from mbv2det.errors import ConfigError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap, with_background

# The settings of files with masks, of `DataConfig`.
MASK_FILE_SETTINGS = frozenset(
    {"mask_values", "mask_colors", "ignore_color", "mask_channel", "ignore_index"}
)
_BACKGROUND_NAMES = re.compile(r"_*(background|bg)_*", re.IGNORECASE)


def choose_classes(data: DataConfig, annotations: Annotations) -> Annotations:
    """Returns the split with the objects of the configured classes.

    Without configured classes, all are kept except a class without objects that stands for no
    object: it is called background, or has COCO's id 0, as the root of the categories in exports
    of Roboflow.
    """
    objects = annotations.objects
    assert objects is not None
    if not len(objects.label_map):
        return annotations
    _count_similar_names(annotations)
    if data.classes != "auto":
        return annotations.with_label_map(objects.label_map.choose(data.classes))
    root_id = 0 if data.format == "coco" else None
    used = np.bincount(objects.labels, minlength=len(objects.label_map)) > 0
    kept = [
        name
        for name, id_, has_objects in zip(*_columns(objects.label_map), used, strict=True)
        if has_objects or not (id_ == root_id or _BACKGROUND_NAMES.fullmatch(name))
    ]
    left_out = [name for name in objects.label_map.names if name not in kept]
    if not left_out or not kept or not len(objects):
        return annotations
    for name in left_out:
        fault = "class without objects, the background or the root of the classes, left out"
        annotations.faults.add(fault, name)
    return annotations.with_label_map(objects.label_map.choose(kept))


def _columns(label_map: LabelMap) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return label_map.names, label_map.ids


def _count_similar_names(annotations: Annotations) -> None:
    """Counts classes that differ only in upper and lower case, or in spaces and the like."""
    assert annotations.objects is not None
    names_of: dict[str, list[str]] = {}
    for name in annotations.objects.label_map.names:
        names_of.setdefault(re.sub(r"[\s_-]+", "", name).casefold(), []).append(name)
    for names in names_of.values():
        if len(names) > 1:
            fault = "classes with nearly the same name, which stay different classes"
            for name in names:
                annotations.faults.add(fault, repr(name))


def choose_labels(request: SplitRequest[Any], annotations: Annotations) -> Annotations:
    """Returns a split in the configured classes and mask labels, with boxes if requested.

    Raises:
        ConfigError: If `mask_classes` has a class that the data set has not.
    """
    data = request.data
    annotations = choose_classes(data, annotations)
    assert annotations.objects is not None
    if annotations.masks is not None:
        names = with_background(annotations.objects.label_map.names)
        if data.mask_classes == "voc":
            names = with_background(VOC_NAMES)
        elif data.mask_classes is not None:
            names = data.mask_classes
            # Raises an error for an unknown class.
            annotations.objects.label_map.choose([name for name in names if name != BACKGROUND])
        annotations = annotations.with_mask_label_map(LabelMap.of_masks(names))
    return annotations if request.boxes else replace(annotations, objects=None)


def value_label_map(data: DataConfig, names: tuple[str, ...]) -> LabelMap:
    """Returns the label map of names and their values in masks.

    Raises:
        ConfigError: If there are not as many values as names.
    """
    values = data.mask_values or tuple(range(len(names)))
    if len(values) != len(names):
        raise ConfigError(
            f"data.mask_values: expected {len(names)} values, one for each of {', '.join(names)}; "
            f"got {len(values)}"
        )
    return LabelMap(names, values)


def mask_reading(data: DataConfig) -> MaskReading:
    """Returns how the pixels of mask files become values.

    Raises:
        ConfigError: If colours and classes do not fit each other.
    """
    if data.mask_colors is not None:
        return MaskReading(colors=tuple(_color_table(data, data.mask_colors).items()))
    if data.ignore_color is not None:
        raise ConfigError(
            "data.ignore_color: expected data.mask_colors beside it, found none; masks of "
            "values have data.ignore_index"
        )
    return MaskReading(channel=data.mask_channel)


def _color_table(data: DataConfig, colors: tuple[Color, ...]) -> dict[Color, int]:
    """Returns the value that each colour stands for."""
    names = data.classes if data.mask_classes is None else data.mask_classes
    names = with_background(VOC_NAMES) if names in ("voc", "auto") else names
    if len(names) != len(colors):
        raise ConfigError(
            f"data.mask_colors: expected a colour for each of the {len(names)} names of masks "
            f"(data.mask_classes or data.classes, background among them), got {len(colors)}"
        )
    if data.mask_channel is not None:
        raise ConfigError("data.mask_channel: expected none beside data.mask_colors, got one")
    if data.ignore_color is not None and data.ignore_index is None:
        raise ConfigError("data.ignore_index: expected a value beside data.ignore_color, got null")
    table = dict(zip(colors, data.mask_values or range(len(colors)), strict=False))
    ignored = {} if data.ignore_color is None else {data.ignore_color: data.ignore_index or 0}
    if len(table | ignored) != len(colors) + len(ignored):
        raise ConfigError("data.mask_colors: expected different colours, got one twice")
    if not all(0 <= channel <= 255 for color in table | ignored for channel in color):
        raise ConfigError(f"data.mask_colors: expected numbers from 0 to 255, got {list(table)}")
    return table | ignored
