"""The trial of a user's transform before a training: does it move what it has to move?

What a transform says about itself is not enough: albumentations' RandomGridShuffle, for one, has a
rule for boxes and leaves them where they were. So it is run on a picture of painted objects, whose
boxes have to follow their pixels.
"""

import re
import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
from albumentations.core.type_definitions import Targets

from mbv2det.data.sample_transform import SampleTransform
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import IGNORE_INDEX, Instances, Sample, SampleKey

_TARGETS = {"images": Targets.IMAGE, "boxes": Targets.BBOXES, "masks": Targets.MASK}
# Sides of the picture in sides of the network input; the second one for large crops.
_SCALES = (2, 8)
_TRIALS = 4
_MIN_OVERLAP = 0.5  # mean IoU of the boxes and of the pixels of their objects
# Objects as xyxy boxes in fractions of the picture, and their labels in the mask, which are far
# apart, so that interpolated labels are others.
_BOXES = np.array([[0.06, 0.12, 0.3, 0.45], [0.45, 0.16, 0.9, 0.8], [0.3, 0.6, 0.42, 0.95]])
_LABELS = np.array([60, 130, 200])


def moves_boxes(leaf: Any) -> bool:
    """Returns whether a transform moves boxes at all: those of colours need not."""
    return not isinstance(leaf, A.ImageOnlyTransform) and Targets.BBOXES in _targets(leaf)


def try_out(key: str, leaf: Any, spec: PreprocessSpec, annotation: Collection[str]) -> None:
    """Runs a transform on painted objects.

    Args:
        key: Name of the setting that describes the transform.
        leaf: Transform to run.
        spec: Preprocessing of the run.
        annotation: What has to move with the image: boxes, masks or both.

    Raises:
        ConfigError: If the transform cannot be used on the samples of a run.
    """
    name = type(leaf).__name__
    if not isinstance(leaf, A.ImageOnlyTransform):
        needed = ("images", *annotation)
        missing = [what for what in needed if _TARGETS[what] not in _targets(leaf)]
        if missing:
            raise ConfigError(
                f"{key}: expected a transform of {' and '.join(needed)}, got {name}, which cannot "
                f"move {' and '.join(missing)}"
            )
    failures = []
    for scale in _SCALES:
        try:
            _run(key, leaf, _painted(spec, scale), annotation)
            return
        except ConfigError:
            raise
        except Exception as error:
            failures.append(one_line(error))
    raise ConfigError(
        f"{key}: expected a transform of images and their {' and '.join(annotation)}, got {name}, "
        f"which fails: {failures[0]}"
    )


def one_line(error: Exception) -> str:
    """Returns the message of an error as one line."""
    return re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__


def _targets(leaf: Any) -> tuple[Targets, ...]:
    targets = getattr(leaf, "_targets", ())
    return targets if isinstance(targets, tuple) else (targets,)


def _painted(spec: PreprocessSpec, scale: int) -> Sample:
    """Returns noise with objects that the mask shows."""
    height, width = (scale * side for side in spec.size)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    boxes = np.rint(_BOXES * [width, height, width, height]).astype(np.float32)
    mask = np.zeros((height, width), np.uint8)
    for (left, top, right, bottom), label in zip(boxes.astype(int), _LABELS, strict=True):
        mask[top:bottom, left:right] = label
    instances = Instances(boxes, np.arange(len(boxes)), np.zeros(len(boxes), bool))
    return Sample(SampleKey(0, 0), image, Frame((height, width)), instances, mask)


def _run(key: str, leaf: Any, sample: Sample, annotation: Collection[str]) -> None:
    """Applies a transform several times and compares what comes out."""
    in_training = sample if "masks" in annotation else replace(sample, mask=None)
    overlaps: list[float] = []
    probability, leaf.p = leaf.p, 1.0
    try:
        transform = SampleTransform([leaf], moves_boxes=moves_boxes(leaf))
        for trial in range(_TRIALS if moves_boxes(leaf) else 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are shown in the training
                _check_mask(key, leaf, transform(in_training, np.random.default_rng(trial)))
                if moves_boxes(leaf) and Targets.MASK in _targets(leaf):
                    overlaps += _overlaps(transform(sample, np.random.default_rng(trial)))
    finally:
        leaf.p = probability
    if "boxes" in annotation and overlaps and np.mean(overlaps) < _MIN_OVERLAP:
        raise ConfigError(
            f"{key}: expected a transform that moves boxes with the pixels of their objects, got "
            f"{type(leaf).__name__}, which moves the pixels alone"
        )


def _check_mask(key: str, leaf: Any, sample: Sample) -> None:
    mask, size, name = sample.mask, sample.image.shape[:2], type(leaf).__name__
    if mask is None:
        return
    if mask.shape != size:
        raise ConfigError(
            f"{key}: expected a transform that moves masks with images, got {name}: a mask of "
            f"{mask.shape} for an image of {size} (height, width)"
        )
    fill = getattr(leaf, "fill_mask", None)
    if not set(np.unique(mask)) <= {0, *_LABELS, IGNORE_INDEX, fill}:
        raise ConfigError(
            f"{key}: expected a transform that keeps the labels of masks, got {name}, which mixes "
            "them; set its mask_interpolation to 0 (nearest neighbour)"
        )


def _overlaps(sample: Sample) -> list[float]:
    """Returns the IoU of each box with the box around the pixels of its object; 0 without any."""
    overlaps = []
    assert sample.instances is not None
    assert sample.mask is not None
    for box, label in zip(sample.instances.boxes, sample.instances.labels, strict=True):
        rows, columns = np.nonzero(sample.mask == _LABELS[label])
        if not len(rows):
            overlaps.append(0.0)
            continue
        around = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        sides = np.minimum(box[2:], around[2:]) - np.maximum(box[:2], around[:2])
        shared = float(sides.clip(min=0).prod())
        areas = float((box[2:] - box[:2]).prod() + (around[2:] - around[:2]).prod())
        overlaps.append(shared / (areas - shared))
    return overlaps
