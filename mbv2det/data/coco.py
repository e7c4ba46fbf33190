"""COCO's JSON annotation of instances."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mbv2det.data.annotations import Annotations
from mbv2det.data.coco_cache import load_content
from mbv2det.data.file_lists import existing_folder, listing
from mbv2det.data.images import image_size
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.outlines import OutlineKind, Outlines
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap, with_background


def read_coco(annotations: Path, images: Path, *, masks: bool = False) -> Annotations:
    """Reads one split; images without objects are kept, category ids may have gaps.

    Args:
        annotations: JSON file.
        images: Folder that the file's `file_name` entries are relative to.
        masks: Whether to also read the outlines of the instances, as masks of background and all
            categories.

    Raises:
        DataError: If the file is not a COCO annotation, if an object belongs to an unknown image or
            category, or if an image file is missing.
    """
    content = load_content(annotations, outlines=masks)
    _check_images(annotations, content.file_names, images)
    split = Annotations(
        name=str(annotations),
        image_ids=np.array(content.image_ids, np.str_),
        files=np.array(_paths(images, content.file_names), np.str_),
        sizes=content.sizes.copy(),
        objects=content.objects,
        faults=content.faults,
    )
    _read_unknown_sizes(split)
    split.count_bad_boxes()
    if content.outlines is None:
        return split
    return replace(split, masks=_masks(split, content.outlines))


def _check_images(path: Path, file_names: list[str], folder: Path) -> None:
    existing_folder(folder)
    present = listing(folder)
    missing = [name for name in file_names if name not in present]
    missing = [name for name in missing if not _is_file(folder / name)]
    if missing:
        raise DataError(
            f"{folder}: expected the {len(file_names)} images that {path} lists, "
            f"{len(missing)} are missing; the first is {missing[0]}"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with characters that names cannot have
        return False


def _paths(folder: Path, file_names: list[str]) -> list[str]:
    """Returns the path of each image; those directly in the folder take no time."""
    plain = f"{folder / 'x'}"[:-1]
    return [
        plain + name if "/" not in name and "\\" not in name else str(folder / name)
        for name in file_names
    ]


def _read_unknown_sizes(split: Annotations) -> None:
    """Fills in, from the image files, the sizes that are not annotated; -1 and 0 are no sizes."""
    for index in np.flatnonzero((split.sizes == 0).any(axis=1)).tolist():
        split.sizes[index] = image_size(split.path(index))
        split.faults.add(
            "images without annotated width and height, which are read from the file",
            split.path(index).name,
        )


def _masks(split: Annotations, outlines: Outlines) -> InstanceMasks:
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
