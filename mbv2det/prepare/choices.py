"""Choices that follow from the data: pure functions of boxes, sizes and counts.

Each returns its value with the reason, a sentence for people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64

from mbv2det.detection.anchors import AnchorSpec, coverage, make_anchors
from mbv2det.detection.matcher import Matcher

Value = TypeVar("Value")

_CELL = 16  # pixels: side of a cell of SSDLite's finest grid, below which objects are hard to find
_FOUND = 0.9  # share of the objects that should be at least so large
_BOX_SIDES = (320, 416, 512)
_MASK_SIDES = (257, 321, 385, 513)  # 16 n + 1, as DeepLab's grids want
_LEVELS = 6  # of SSDLite
_BETTER = 0.05  # share of the objects by which other anchors have to cover more
_SCALES = (0.05, 0.95)  # of anchors, smallest and largest
_SPREAD = 0.1  # between the two, at least
_OF_SMALLEST, _OF_LARGEST = (1.0, 1.5, 2.0), (0.8, 1.0, 1.25)  # scales, in sides of clusters
_ROUNDS = 50  # of k-means
_STEPS = 1000  # of a training: with fewer, the network has not finished learning
_MOST_EPOCHS = 200
_LEAST_STEPS = 4  # of an epoch
_SHOWN = 12  # classes in a line
_RARE = 20  # objects, or images with pixels, below which a class is hardly learned


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """A chosen setting.

    Attributes:
        value: Its value.
        reason: Why, in one sentence without a full stop.
    """

    value: Value
    reason: str


def choose_side(
    boxes: Float64[np.ndarray, "N 4"], sizes: Float64[np.ndarray, "N 2"], longest: int, masks: bool
) -> Choice[int]:
    """Chooses the side of the network input.

    Args:
        boxes: xyxy boxes of the objects in pixels of their images; none for masks alone.
        sizes: (height, width) of each object's image.
        longest: Median of the longer sides of the images in pixels.
        masks: Whether masks are learned, too.
    """
    sides: tuple[int, ...] = _MASK_SIDES if masks else _BOX_SIDES
    largest = next((side for side in sides if side >= longest), sides[-1])
    sides = tuple(side for side in sides if side <= largest)
    if not len(boxes):
        reason = f"images have a longer side of {longest} pixels"
        return Choice(largest, f"{reason}; nothing is gained beyond {largest}")
    shares = [_share_of_large(boxes, sizes, side) for side in sides]
    if masks:
        side = largest
    else:
        side = next((s for s, share in zip(sides, shares, strict=True) if share >= _FOUND), largest)
    share = shares[sides.index(side)]
    reason = f"{share:.0%} of the objects have a side of {_CELL} pixels or more at {side}"
    if not masks and side > sides[0]:
        reason += f", {shares[0]:.0%} at {sides[0]}, which takes {(sides[0] / side) ** 2:.0%} of "
        reason += "the time"
    return Choice(side, reason)


def _share_of_large(
    boxes: Float64[np.ndarray, "N 4"], sizes: Float64[np.ndarray, "N 2"], side: int
) -> float:
    scaled = boxes * (side / np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1))
    return float((_sides(scaled) >= _CELL).mean())


def _sides(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """Returns the square roots of the areas of boxes."""
    return np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))


def choose_scales(
    boxes: Float[np.ndarray, "N 4"], image_size: tuple[int, int]
) -> Choice[tuple[float, float] | None]:
    """Chooses the smallest and largest scale of the anchors; None for the defaults.

    k-means finds the sizes of the objects. The scales of the smallest and the largest cluster are
    used if clearly more objects overlap an anchor by the matcher's threshold than with the
    defaults.

    Args:
        boxes: xyxy boxes in pixels of the network input.
        image_size: (height, width) of the network input.
    """
    if not len(boxes):
        return Choice(None, "no boxes to compare them with")
    threshold = Matcher().threshold
    default = AnchorSpec()
    grids = grids_of(image_size)
    found = torch.from_numpy(boxes.astype(np.float32))

    def covered(spec: AnchorSpec) -> float:
        return coverage(found, make_anchors(spec, grids, image_size), threshold)

    before = covered(default)
    fitted = max(_specs_of(cluster_sides(_sides(boxes) / min(image_size))), key=covered)
    after = covered(fitted)
    figures = (
        f"{before:.1%} of {len(boxes)} objects overlap an anchor by {threshold} or more with the "
        f"defaults ({default.min_scale:g} to {default.max_scale:g}), {after:.1%} with k-means' "
        f"{fitted.min_scale:g} to {fitted.max_scale:g}"
    )
    if after < before + _BETTER:
        return Choice(None, f"{figures}: the defaults stay")
    return Choice((fitted.min_scale, fitted.max_scale), figures)


def _specs_of(clusters: Float[np.ndarray, " k"]) -> list[AnchorSpec]:
    """Returns anchors from the smallest to the largest cluster of sides.

    The smallest anchor has half of the smallest scale, and levels overlap: where in this range the
    scales fit best is found by trying.
    """
    specs = []
    for low, high in product(_OF_SMALLEST, _OF_LARGEST):
        smallest = float(np.clip(low * clusters[0], _SCALES[0], _SCALES[1] - _SPREAD))
        largest = float(np.clip(high * clusters[-1], smallest + _SPREAD, _SCALES[1]))
        specs.append(AnchorSpec(round(smallest, 3), round(largest, 3)))
    return specs


def cluster_sides(sides: Float[np.ndarray, " N"]) -> Float[np.ndarray, " k"]:
    """Returns the centres of up to 6 clusters of sides by k-means on their logarithms, ascending.

    Args:
        sides: Square roots of areas; zeros are left out.
    """
    logs = np.log(sides[sides > 0])
    centres = np.unique(np.quantile(logs, (np.arange(_LEVELS) + 0.5) / _LEVELS))
    for _ in range(_ROUNDS):
        nearest = np.abs(logs[:, None] - centres).argmin(axis=1)
        used = np.unique(nearest)
        moved = np.array([logs[nearest == k].mean() for k in used])
        if len(moved) == len(centres) and np.allclose(moved, centres):
            break
        centres = moved
    return np.exp(np.sort(centres))


def grids_of(image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Returns the (h, w) of SSDLite's feature maps, of strides 16, 32, 64, ..."""
    height, width = image_size
    strides = [_CELL << level for level in range(_LEVELS)]
    return tuple((-(-height // stride), -(-width // stride)) for stride in strides)


def choose_batch_size(num_images: int, default: int) -> Choice[int]:
    """Chooses the number of images of a step: the default, or a power of two for few images."""
    few = max(2, num_images // _LEAST_STEPS)
    size = min(default, 1 << (few.bit_length() - 1))
    if size == default:
        return Choice(size, "as the learning rate below expects")
    return Choice(size, f"{num_images} training images make {num_images // size} steps")


def choose_epochs(num_images: int, batch_size: int, default: int) -> Choice[int]:
    """Chooses the number of epochs: the default, or more for a data set of few images."""
    steps = max(1, num_images // batch_size)
    epochs = min(max(default, -(-_STEPS // steps)), max(default, _MOST_EPOCHS))
    return Choice(epochs, f"{epochs} x {steps} steps of {batch_size} images = {epochs * steps}")


def describe_classes(
    train: Mapping[str, int], val: Mapping[str, int], unit: str
) -> tuple[str, Sequence[str]]:
    """Returns a line with the classes, and warnings about rare ones.

    Args:
        train: Number of objects, or images, of each class in the training split.
        val: The same in the validation split.
        unit: What is counted, such as objects.
    """
    rare = {name: count for name, count in train.items() if count < _RARE}
    unmeasured = {name: count for name, count in train.items() if not val.get(name)}
    warnings = []
    if rare:
        warnings.append(
            f"{len(rare)} rare classes, with fewer than {_RARE} {unit} to learn from: "
            f"{_counts(rare, rarest=True)}"
        )
    if unmeasured:
        warnings.append(
            f"{len(unmeasured)} classes that validation cannot measure: {_counts(unmeasured)}"
        )
    return f"{len(train)} classes, {unit} in train: {_counts(train)}", warnings


def _counts(counts: Mapping[str, int], *, rarest: bool = False) -> str:
    """Returns classes with their counts, the most frequent or the rarest first."""
    ordered = sorted(counts, key=lambda name: counts[name], reverse=not rarest)
    shown = ", ".join(f"{name} {counts[name]}" for name in ordered[:_SHOWN])
    return f"{shown} and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else shown
