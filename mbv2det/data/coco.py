"""COCO's JSON annotation of instances."""

import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mbv2det.data.annotations import Annotations
from mbv2det.data.coco_cache import load_content
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import (
    existing_folder,
    find_file,
    listing,
    nearest_name,
    refuse_outside,
)
from mbv2det.data.images import image_size
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.outlines import OutlineKind, Outlines
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap, with_background


def read_coco(
    annotations: Path, images: Path, *, masks: bool = False, root: Path | None = None
) -> Annotations:
    """Reads one split; images without objects are kept, category ids may have gaps.

    Args:
        annotations: JSON file.
        images: Folder that the file's `file_name` entries are relative to.
        masks: Whether to also read the outlines of the instances, as masks of background and all
            categories.
        root: Folder of the data set, outside of which no image is read; by default that of the
            images.

    Raises:
        DataError: If the file is not a COCO annotation, if an object belongs to an unknown image or
            category, or if an image file is missing.
    """
    content = load_content(annotations, outlines=masks)
    faults = deepcopy(content.faults)
    file_names = _find_images(
        annotations, content.file_names, images, images if root is None else root, faults
    )
    split = Annotations(
        name=str(annotations),
        image_ids=np.array(content.image_ids, np.str_),
        files=np.array(_paths(images, file_names), np.str_),
        sizes=content.sizes.copy(),
        objects=content.objects,
        faults=faults,
    )
    read_unknown_sizes(split)
    split.count_bad_boxes()
    if content.outlines is None:
        return split
    return replace(split, masks=outline_masks(split, content.outlines))


def _find_images(
    path: Path, file_names: list[str], folder: Path, root: Path, faults: FaultCounts
) -> list[str]:
    """Returns the path of each image relative to the folder; other spellings are counted."""
    existing_folder(folder)
    present = listing(folder)
    found = [n if n in present else find_file(folder, n, root) for n in file_names]
    missing = [name for name, file in zip(file_names, found, strict=True) if file is None]
    if missing:
        refuse_outside(root, folder / missing[0], f"{path}: file_name")
        hint = nearest_name(folder, re.split(r"[\\/]", missing[0])[-1])
        raise DataError(
            f"{folder}: expected the {len(file_names)} images that {path} lists, "
            f"{len(missing)} are missing; the first is {missing[0]}{hint}"
        )
    names = [file for file in found if file is not None]
    for name, file in zip(file_names, names, strict=True):
        if name != file:
            faults.add("images named with folders of another machine, found by their name", name)
    return names


def _paths(folder: Path, file_names: list[str]) -> list[str]:
    """Returns the path of each image; those directly in the folder take no time."""
    plain = f"{folder / 'x'}"[:-1]
    return [
        plain + name if "/" not in name and "\\" not in name else str(folder / name)
        for name in file_names
    ]


def read_unknown_sizes(split: Annotations) -> None:
    """Fills in, from the image files, the sizes that are not annotated; -1 and 0 are no sizes."""
    for index in np.flatnonzero((split.sizes == 0).any(axis=1)).tolist():
        split.sizes[index] = image_size(split.path(index))
        split.faults.add(
            "images without annotated width and height, which are read from the file",
            split.path(index).name,
        )


def outline_masks(split: Annotations, outlines: Outlines) -> InstanceMasks:
    """Returns the masks of the objects; counts the objects that have no usable outline."""
    objects = split.objects
    assert objects is not None
    if len(outlines) and not (outlines.kinds >= OutlineKind.POLYGONS).any():
        raise DataError(f"{split.name}: expected outlines (segmentation), got none")
    class_names = objects.label_map.names
    masks = InstanceMasks(
        label_map=LabelMap.of_masks(with_background(class_names)),
        class_names=class_names,
        sizes=split.sizes,
        starts=objects.starts,
        classes=objects.labels,
        crowd=objects.crowd,
        boxes=objects.boxes,
        outlines=outlines,
    )
    image = objects.image
    in_mask = masks.annotated[image]
    undrawn = outlines.kinds < OutlineKind.POLYGONS
    _count(
        split, image[undrawn & in_mask], "objects without a usable outline, whose box masks ignore"
    )
    without = np.flatnonzero(~masks.annotated)
    _count(split, without, "images with boxes but without outlines, which have no mask")
    return masks


def _count(split: Annotations, images: Int64[np.ndarray, " n"], fault: str) -> None:
    for index in images.tolist():
        split.faults.add(fault, split.path(index).name)
