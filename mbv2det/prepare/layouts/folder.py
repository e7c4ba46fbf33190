"""Folders of images and masks: of values, by colour, or of several channels."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from mbv2det.config import SplitConfig
from mbv2det.data.mask_reading import Color
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND
from mbv2det.prepare.class_tables import ClassTable, MaskClass, find_class_table
from mbv2det.prepare.file_kinds import sampled
from mbv2det.prepare.image_lists import find_lists
from mbv2det.prepare.inventory import Inventory
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.mask_names import NamedMasks, NameGroup, match_names, name_groups
from mbv2det.prepare.mask_values import MaskValues, ignored_color, is_mask, read_values
from mbv2det.prepare.pairing import Pairing
from mbv2det.prepare.split_folders import (
    describe,
    describe_unannotated,
    largest_of_each_split,
    unannotated,
)

_MASK_SHARE = 0.8  # of the sampled files of a group that are masks
_SAMPLE = 8
_BLACK = (0, 0, 0)
# Of VOC, CVAT and labelme.
_BESIDE_LABELS = re.compile(r"^Segmentation(Object|.*Visualization$)")


@dataclass(frozen=True)
class _Masks:
    """Masks: the folders and names of masks with images, their pixels, and all images."""

    named: NamedMasks
    values: MaskValues
    images: tuple[str, ...]


def find_folder(inventory: Inventory) -> Iterator[Layout]:
    """Yields the layout of a data set with a mask file for each image."""
    table = find_class_table(inventory)
    masks = _find_masks(inventory, colors_named=table is not None and table.has_colors)
    if masks is None:
        return
    named, values = masks.named, masks.values
    chosen, reasons = largest_of_each_split(named.pairings)
    splits = {
        name: SplitConfig(images=pairing.images, masks=pairing.annotations)
        for name, pairing in chosen.items()
    }
    lists = find_lists(inventory, chosen["train"].matches.values()) if len(chosen) == 1 else None
    if lists:
        (folders,) = splits.values()
        splits = {name: replace(folders, list=file) for name, file in lists.files.items()}
        reasons = [*reasons, *lists.reasons]
    left_out = {} if lists else unannotated(masks.images, chosen)
    data, of_classes = _settings(values, table)
    patterns = {"image_name": named.image_name, "mask_name": named.mask_name}
    patterns = {key: pattern for key, pattern in patterns.items() if pattern is not None}
    yield Layout(
        root=inventory.root,
        format="folder",
        splits=splits,
        boxes=False,
        masks=True,
        num_files=sum(map(len, chosen.values())),
        reasons=(
            *describe("masks (few different values) and images that belong to them", chosen),
            *(f"{key}: {pattern}" for key, pattern in patterns.items()),
            *of_classes,
            *describe_unannotated(left_out),
            *reasons,
        ),
        data={**data, **patterns},
        names={name: _names(chosen[name]) for name in left_out},
    )


def _names(pairing: Pairing) -> list[str]:
    """Returns the names of the images that have a mask."""
    return sorted(
        PurePosixPath(image).relative_to(pairing.images).as_posix()
        for image in pairing.matches.values()
    )


def _find_masks(inventory: Inventory, *, colors_named: bool) -> _Masks | None:
    """Returns the masks of a data set: those of values, or else those by colour.

    Args:
        inventory: Files of the data set.
        colors_named: Whether a table has the colours of the classes.

    Raises:
        DataError: If images have several masks of the same kind.
    """
    groups = name_groups([file for file in inventory.images if not _is_beside_labels(file)])
    are_masks = [_is_mask_group(inventory, group) for group in groups]
    images = [f for g, is_ in zip(groups, are_masks, strict=True) if not is_ for f in g.files]
    found: list[tuple[NameGroup, _Masks]] = []
    for group in _joined(groups, are_masks):
        named = match_names(group.files, images)
        if named is not None:
            paths = [inventory.root / f for p in named.pairings for f in p.matches]
            values = read_values(paths, colors_named=colors_named)
            found.append((group, _Masks(named, values, tuple(images))))
    of_values = [item for item in found if not item[1].values.colors]
    chosen = of_values or found
    if len(chosen) > 1:
        shown = ", ".join(group.files[0] for group, _ in chosen)
        raise DataError(
            f"{inventory.root}: expected one mask for each image, found several, such as {shown}; "
            "move the others away, or write data.masks and data.mask_name of a configuration by "
            "hand"
        )
    return chosen[0][1] if chosen else None


def _is_beside_labels(file: str) -> bool:
    """Returns whether a file is in a folder of instances or pictures beside VOC's label masks."""
    return bool(_BESIDE_LABELS.search(PurePosixPath(file).parent.name))


def _joined(groups: Sequence[NameGroup], are_masks: Sequence[bool]) -> list[NameGroup]:
    """Returns the groups of masks, those in folders of different names joined by their words."""
    files: dict[tuple[str, str], list[str]] = {}
    for group, is_mask_group in zip(groups, are_masks, strict=True):
        if is_mask_group:
            files.setdefault((group.word, group.suffix), []).extend(group.files)
    return [NameGroup(word, suffix, tuple(group)) for (word, suffix), group in files.items()]


def _is_mask_group(inventory: Inventory, group: NameGroup) -> bool:
    some = sampled(list(group.files))[:_SAMPLE]
    return sum(is_mask(inventory.root / file) for file in some) >= _MASK_SHARE * len(some)


def _settings(values: MaskValues, table: ClassTable | None) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings of classes and values, and lines about them."""
    classes = table.classes if table else []
    source = f"names from {table.file}" if table else "no file of names: rename data.classes"
    if values.colors:
        data = _color_settings(values.colors, classes)
        what = f"{len(values.colors)} colours"
    else:
        data = _value_settings(values, classes)
        shown = ", ".join(map(str, values.values[:12])) + (
            ", ..." if len(values.values) > 12 else ""
        )
        what = f"the values {shown}"
        what += f" and {values.ignore_index}, which is ignored" if values.ignore_index else ""
    names = ", ".join(data["classes"])
    return data, [f"pixels of {values.num_masks} masks: {what}", f"classes: {names} ({source})"]


def _color_settings(colors: Sequence[Color], classes: Sequence[MaskClass]) -> dict[str, Any]:
    """Returns the settings of masks by colour.

    Raises:
        DataError: If a table of colours lacks several colours of the masks.
    """
    known = {c.color: c.name for c in classes if c.color is not None}
    ignored = ignored_color(colors, list(known))
    unknown = [color for color in colors if known and color not in known and color != ignored]
    if unknown:
        raise DataError(
            f"expected masks of the {len(known)} colours in the table of classes, got also "
            f"{', '.join(str(list(color)) for color in unknown[:5])}"
        )
    if not known:
        ordered = sorted((c for c in colors if c != ignored), key=lambda color: color != _BLACK)
        known = {color: _name_of_color(color) for color in ordered}
    # A colour in a table that is ignored pixels keeps no name.
    ignoring = {} if ignored is None else {"ignore_color": ignored}
    return {"classes": tuple(known.values()), "mask_colors": tuple(known), **ignoring}


def _name_of_color(color: Color) -> str:
    return BACKGROUND if color == _BLACK else "color_{:02x}{:02x}{:02x}".format(*color)


def _value_settings(found: MaskValues, classes: Sequence[MaskClass]) -> dict[str, Any]:
    """Returns the settings of masks of values."""
    values = _named_values(found.values, classes)
    for value in found.values:  # those of a table that does not name them, or of none
        values.setdefault(value, BACKGROUND if value == 0 else f"class_{value}")
    values = dict(sorted(values.items()))
    settings: dict[str, Any] = {"classes": tuple(values.values())}
    if tuple(values) != tuple(range(len(values))):
        settings["mask_values"] = tuple(values)
    if found.ignore_index is None and 255 in values:
        settings["ignore_index"] = None
    if found.channel is not None:
        settings["mask_channel"] = found.channel
    return settings


def _named_values(values: Sequence[int], classes: Sequence[MaskClass]) -> dict[int, str]:
    """Returns the names of values in a table.

    A table without values names 0, 1, ... in its order, but for background, which it may lack: then
    it names 1, 2, ...
    """
    if all(c.value is not None for c in classes):
        return {int(c.value): c.name for c in classes if c.value is not None}
    names = [c.name for c in classes]
    lacks_background = max(values, default=0) == len(names) and BACKGROUND not in names
    named: Mapping[int, str] = dict(enumerate(names, start=1 if lacks_background else 0))
    return dict(named)
