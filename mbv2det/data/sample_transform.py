"""Transforms of albumentations, applied to a sample: its image, its objects and its mask."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import albumentations as A
import numpy as np
from jaxtyping import UInt8

from mbv2det.geometry import Frame
from mbv2det.structures import NO_INSTANCES, Instances, Sample

_LABEL_FIELDS = ("ignore", "rows")  # columns of the array of boxes after the four corners
IGNORE_COLUMN = 4 + _LABEL_FIELDS.index("ignore")


class SampleTransform:
    """A sequence of transforms; boxes are clipped, and dropped if less than a pixel is left.

    Args:
        transforms: Transforms of albumentations.
        moves_boxes: Whether one of them can move boxes: albumentations warns of boxes if none can.
    """

    def __init__(self, transforms: Sequence[Any], *, moves_boxes: bool = True) -> None:
        self._moves_boxes = moves_boxes
        params = A.BboxParams(
            format="pascal_voc",
            label_fields=list(_LABEL_FIELDS),
            clip=True,
            filter_invalid_bboxes=True,
            min_width=1,
            min_height=1,
        )
        self._compose = A.Compose(list(transforms), bbox_params=params if moves_boxes else None)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Returns the transformed sample; its frame no longer refers to the original file.

        Args:
            sample: Sample of any size.
            generator: Source of all random numbers.

        Raises:
            TypeError: If a transform makes another kind of image.
        """
        self._compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        objects = sample.instances or NO_INSTANCES
        targets: dict[str, Any] = {} if sample.mask is None else {"mask": sample.mask}
        if self._moves_boxes:
            targets |= {
                "bboxes": objects.boxes,
                "ignore": objects.ignore.astype(np.int64),
                "rows": np.arange(len(objects)),
            }
        done = self._compose(image=sample.image, **targets)
        image = _checked(done["image"])
        if self._moves_boxes:
            boxes = np.asarray(done["bboxes"], np.float32).reshape(-1, 4)
            rows = np.asarray(done["rows"], np.int64)
            objects = Instances(boxes, objects.labels[rows], objects.ignore[rows])
        return replace(
            sample,
            image=image,
            frame=Frame((image.shape[0], image.shape[1])),
            instances=None if sample.instances is None else objects,
            mask=None if sample.mask is None else np.ascontiguousarray(done["mask"]),
        )


def _checked(image: Any) -> UInt8[np.ndarray, "H W 3"]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(
            f"it makes images of {kind} and shape {getattr(image, 'shape', '?')} instead of RGB of "
            "8 bits, which the network normalises itself"
        )
    return np.ascontiguousarray(image)
