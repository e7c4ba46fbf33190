"""Statistics of a split, shown before training: sizes of boxes and shares of labels."""

import contextlib

import numpy as np
from jaxtyping import Float32, Int64

from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.images import value_range_of
from mbv2det.data.value_range import ValueRange, joined
from mbv2det.errors import DataError
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import IGNORE_INDEX


def network_boxes(
    split: Annotations, preprocessor: Preprocessor, most: int = 2000
) -> Float32[np.ndarray, "N 4"]:
    """Returns the boxes of evenly spaced images in the frame of the network input.

    Ignored objects and images whose annotation gives no size are left out.

    Args:
        split: Split with objects.
        preprocessor: Preprocessing of the images.
        most: Largest number of images.

    Returns:
        xyxy boxes in pixels of the network input, in the order of the images.
    """
    assert split.objects is not None
    boxes = [np.zeros((0, 4), np.float32)]
    for index in evenly_spaced(len(split), most):
        size = split.size(index)
        if size is not None:
            instances = split.objects.instances(index, size)
            shown = instances.boxes[~instances.ignore]
            boxes.append(preprocessor.frame(size).boxes_to_working(shown))
    return np.concatenate(boxes)


def count_objects(split: Annotations) -> Int64[np.ndarray, " K"]:
    """Returns the number of objects of each class of a split, without ignored ones."""
    objects = split.objects
    assert objects is not None
    return np.bincount(objects.labels[~objects.ignore], minlength=len(objects.label_map))


def count_labels(split: Annotations, most: int = 1000) -> Int64[np.ndarray, " L"]:
    """Returns the number of pixels of each label in evenly spaced masks of a split.

    Masks that cannot be read do not count here: `data.on_error` decides about them.

    Args:
        split: Split with masks.
        most: Largest number of masks.
    """
    assert split.masks is not None
    annotated = np.flatnonzero(split.masks.annotated)
    counts = np.zeros(256, np.int64)
    for index in annotated[evenly_spaced(len(annotated), most)]:
        with contextlib.suppress(DataError):
            counts += _count_pixels(split, np.array([index]))
    return counts[: len(split.masks.label_map)]


def measure_value_range(split: Annotations, most: int = 100) -> ValueRange | None:
    """Returns the range of the values of evenly spaced images of more than 8 bits.

    Images that cannot be read do not count here: `data.on_error` decides about them.

    Args:
        split: Any split.
        most: Largest number of images.

    Returns:
        The smallest and largest value, or None if no image has more than 8 bits.
    """
    ranges = []
    for index in evenly_spaced(len(split), most):
        with contextlib.suppress(DataError):
            ranges.append(value_range_of(split.path(index)))
    return joined([found for found in ranges if found is not None])


def describe_masks(split: Annotations, most: int = 100) -> str:
    """Returns a line with the share of pixels that each label has in evenly spaced masks.

    Args:
        split: Split with masks.
        most: Largest number of masks.

    Raises:
        DataError: If the masks have a single label, a sign that the values in the files are mapped
            to the wrong labels.
    """
    assert split.masks is not None
    annotated = np.flatnonzero(split.masks.annotated)
    chosen = annotated[evenly_spaced(len(annotated), most)]
    counts = _count_pixels(split, chosen)
    pixels, names = max(1, int(counts.sum())), split.masks.label_map.names
    ignored = f"{counts[IGNORE_INDEX] / pixels:.1%}"
    if len(names) > 1 and np.count_nonzero(counts[: len(names)]) < 2:
        raise DataError(
            f"{split.name}: expected pixels of {', '.join(names)}, got a single label in "
            f"{len(chosen)} masks and {ignored} ignored pixels: do data.mask_values and "
            "data.ignore_index (null for none) give the right meaning of the values?"
        )
    order = np.argsort(-counts[: len(names)], kind="stable")
    seen = [f"{names[i]} {counts[i] / pixels:.1%}" for i in order if counts[i]]
    unseen = [names[i] for i in order if not counts[i]]
    parts = [", ".join(seen), f"ignored {ignored}"]
    parts += [f"never seen: {', '.join(unseen)}"] if unseen else []
    return f"pixels of {len(chosen)} of {len(annotated)} masks: {'; '.join(parts)}"


def _count_pixels(
    split: Annotations, indices: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " 256"]:
    """Counts the pixels of each mask value 0..255."""
    assert split.masks is not None
    counts = np.zeros(256, np.int64)
    for index in indices:
        counts += np.bincount(split.masks.read(int(index)).ravel(), minlength=256)
    return counts
