"""What a data set is like, as far as the choices of a configuration depend on it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from mbv2det.data.annotated_image import AnnotatedObject
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.images import image_size
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.outlines import OutlineKind
from mbv2det.errors import DataError

_MOST_MASKS = 300  # masks that are read for their classes
_MOST_SIZES = 2000  # images that are opened for their sizes
_DRAWN = 0.97  # share of its box that an outline encloses at most, if it is no box itself
_MOST_OUTLINES = 500
_SOME = 0.1  # share of the objects with such an outline from which masks are worth learning


def with_measured_sizes(split: Annotations) -> Annotations:
    """Returns the split with the sizes of up to 2,000 images that the annotation does not give."""
    sizes = split.sizes.copy()
    unknown = np.flatnonzero((sizes == 0).any(axis=1))
    for index in unknown[evenly_spaced(len(unknown), _MOST_SIZES)].tolist():
        with suppress(DataError):  # a file that cannot be read is reported with all others
            sizes[index] = image_size(split.path(index))
    return replace(split, sizes=sizes)


def has_drawn_outlines(masks: InstanceMasks) -> bool:
    """Returns True if outlines say more than boxes, for at least a tenth of the objects."""
    rows = evenly_spaced(len(masks.outlines), _MOST_OUTLINES)
    drawn = [_is_drawn(masks, row) for row in rows]
    return sum(drawn) >= max(1, _SOME * len(drawn))


def _is_drawn(masks: InstanceMasks, row: int) -> bool:
    """Returns True for run lengths, and polygons that leave out a part of the box around them."""
    if masks.outlines.kinds[row] == OutlineKind.RUN_LENGTHS:
        return True
    polygons = [polygon.tolist() for polygon in masks.outlines.polygons(row)]
    if not polygons:
        return False
    outlined = AnnotatedObject.of_polygons("", polygons)
    return outlined.area < _DRAWN * replace(outlined, outline=None).area


def mask_share(split: Annotations) -> float:
    """Returns the share of the images with objects that have a mask."""
    assert split.objects is not None
    assert split.masks is not None
    with_objects = np.diff(split.objects.starts) > 0
    return float(split.masks.annotated[with_objects].mean()) if with_objects.any() else 0.0


def median_longer_side(split: Annotations) -> int:
    """Returns the median of the longer sides of the images whose sizes are known, in pixels."""
    known = split.sizes[(split.sizes > 0).all(axis=1)]
    return int(np.median(known.max(axis=1))) if len(known) else 0


def objects_by_class(split: Annotations) -> dict[str, int]:
    """Returns the number of objects of each class, without crowds and difficult ones."""
    objects = split.objects
    assert objects is not None
    names = objects.label_map.names
    counts = np.bincount(objects.labels[~objects.ignore], minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def masks_by_class(split: Annotations) -> dict[str, int]:
    """Returns the number of masks with pixels of each class, of up to 300 evenly spaced ones."""
    assert split.masks is not None
    names = split.masks.label_map.names
    counts = labels_in_masks(split, _MOST_MASKS).sum(axis=0)
    return dict(zip(names, counts.tolist(), strict=True))


def labels_in_masks(split: Annotations, most: int) -> Bool[np.ndarray, "N K"]:
    """Returns which labels the masks of some evenly spaced images have; False for other images."""
    assert split.masks is not None
    present = np.zeros((len(split), len(split.masks.label_map)), bool)
    annotated = np.flatnonzero(split.masks.annotated)
    for index in annotated[evenly_spaced(len(annotated), most)].tolist():
        with suppress(DataError):
            values = np.unique(split.masks.read(index))
            present[index, values[values < present.shape[1]]] = True
    return present


def classes_in_images(split: Annotations) -> Bool[np.ndarray, "N K"]:
    """Returns which classes the objects, or the mask, of each image have."""
    if split.objects is None:
        return labels_in_masks(split, len(split))
    present = np.zeros((len(split), len(split.objects.label_map)), bool)
    present[split.objects.image, split.objects.labels] = True
    return present


def counts_of(split: Annotations) -> tuple[Mapping[str, int], str]:
    """Returns what there is of each class, and what is counted."""
    if split.objects is not None:
        return objects_by_class(split), "objects"
    return masks_by_class(split), "masks"
