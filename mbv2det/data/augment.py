"""SSD's augmentation (Liu et al. 2016, section 2.2 and its figure 6) on albumentations.

The only file that imports albumentations. Every random draw of a sample comes from one generator
made of (seed, epoch, index), so workers, their number and a restart change nothing; albumentations'
own seeding would give all transforms the same stream.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from mbv2det.config import AugmentConfig
from mbv2det.geometry import Frame
from mbv2det.structures import Instances, Sample


class RandomExpand(A.DualTransform):
    """Puts the image somewhere on a larger canvas of the same aspect ratio.

    Args:
        max_ratio: Side of the largest canvas, in sides of the image.
        fill: Colour of the canvas.
        p: Probability of doing so.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.BBOXES)

    def __init__(self, max_ratio: float, fill: tuple[int, int, int], p: float) -> None:
        super().__init__(p=p)
        self.max_ratio = max_ratio
        self.fill = fill

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draws the canvas and the place on it, in pixels."""
        height, width = params["shape"][:2]
        ratio = self.random_generator.uniform(1, self.max_ratio)
        canvas = int(height * ratio), int(width * ratio)
        top = int(self.random_generator.integers(canvas[0] - height + 1))
        left = int(self.random_generator.integers(canvas[1] - width + 1))
        return {"canvas": canvas, "corner": (top, left)}

    def apply(
        self,
        img: UInt8[np.ndarray, "H W 3"],
        canvas: tuple[int, int],
        corner: tuple[int, int],
        **params: Any,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The image on its canvas."""
        expanded = np.empty((*canvas, 3), np.uint8)
        expanded[:] = self.fill
        top, left = corner
        expanded[top : top + img.shape[0], left : left + img.shape[1]] = img
        return expanded

    def apply_to_bboxes(
        self,
        bboxes: Float[np.ndarray, "N M"],
        canvas: tuple[int, int],
        corner: tuple[int, int],
        **params: Any,
    ) -> Float[np.ndarray, "N M"]:
        """The boxes, as fractions of the canvas."""
        return move_boxes(bboxes, params["shape"][:2], canvas, corner)


class RandomIoUCrop(A.DualTransform):
    """Crops so that some object keeps at least a drawn overlap with the crop (SSD's sampler).

    Of each sample, one of `min_ious` is drawn, then up to `trials` crops with sides of
    `min_scale` to 1 and aspect ratios of 1/2 to 2; the first that holds the centre of an object
    and overlaps one of those by the drawn IoU is taken, else another IoU is drawn. Objects whose
    centre is outside are dropped, the others clipped. An IoU of 1 leaves the image alone. Without
    objects any crop will do. Ignored objects neither steer the crop nor are dropped: what shows of
    a crowd must not be learnt as background.

    Args:
        min_scale: Of the crop's sides.
        min_ious: Drawn from evenly.
        trials: For each draw.
        ignore_column: Of the boxes' array, which is 1 for an ignored object; None where there is
            no such column.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.BBOXES)

    def __init__(
        self,
        min_scale: float = 0.3,
        min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
        ignore_column: int | None = None,
    ) -> None:
        super().__init__(p=1.0)
        self.ignore_column = ignore_column
        self.min_scale = min_scale
        self.min_ious = tuple(min_ious)
        self.trials = trials

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draws the crop: (top, left, bottom, right) in pixels."""
        height, width = params["shape"][:2]
        boxes = np.asarray(data["bboxes"], np.float64)
        if len(boxes):
            boxes = boxes[~self._ignored(boxes), :4] * [width, height, width, height]
        while True:
            min_iou = self.min_ious[self.random_generator.integers(len(self.min_ious))]
            if min_iou >= 1:
                return {"crop": (0, 0, height, width)}
            crops = self._candidates(height, width)
            usable = np.flatnonzero(admits(crops, boxes, min_iou)) if len(boxes) else range(1)
            if len(usable) and len(crops):
                left, top, right, bottom = (int(v) for v in crops[usable[0]])
                return {"crop": (top, left, bottom, right)}

    def _candidates(self, height: int, width: int) -> Shaped[np.ndarray, "T 4"]:
        draws = self.random_generator.random((self.trials, 4))
        sides = (self.min_scale + (1 - self.min_scale) * draws[:, :2]) * [width, height]
        sides = sides.astype(np.int64)
        corner = (([width, height] - sides) * draws[:, 2:]).astype(np.int64)
        narrow, wide = 2 * sides[:, 0] < sides[:, 1], sides[:, 0] > 2 * sides[:, 1]
        fine = ~narrow & ~wide & (sides > 0).all(axis=1)
        return np.concatenate([corner, corner + sides], axis=1)[fine]

    def apply(
        self, img: UInt8[np.ndarray, "H W 3"], crop: tuple[int, int, int, int], **params: Any
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The crop."""
        top, left, bottom, right = crop
        return img[top:bottom, left:right]

    def apply_to_bboxes(
        self, bboxes: Float[np.ndarray, "N M"], crop: tuple[int, int, int, int], **params: Any
    ) -> Float[np.ndarray, "K M"]:
        """Boxes whose centre is inside, as fractions of the crop; the library clips them."""
        top, left, bottom, right = crop
        moved = move_boxes(bboxes, params["shape"][:2], (bottom - top, right - left), (-top, -left))
        centres = (moved[:, :2] + moved[:, 2:4]) / 2
        inside = ((centres > 0) & (centres < 1)).all(axis=1)
        touching = (np.minimum(moved[:, 2:4], 1) > np.maximum(moved[:, :2], 0)).all(axis=1)
        return moved[inside | (self._ignored(moved) & touching)]

    def _ignored(self, boxes: Float[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
        if self.ignore_column is None or not len(boxes):
            return np.zeros(len(boxes), np.bool_)
        return boxes[:, self.ignore_column] > 0


def move_boxes(
    boxes: Float[np.ndarray, "N M"],
    size: Sequence[int],
    new_size: Sequence[int],
    corner: tuple[int, int],
) -> Float[np.ndarray, "N M"]:
    """Relative boxes of an image, relative to another that has the first at `corner` (y, x)."""
    moved = boxes.copy()
    scale, shift = np.array([*size[::-1]] * 2), np.array([*corner[::-1]] * 2)
    moved[:, :4] = (boxes[:, :4] * scale + shift) / np.array([*new_size[::-1]] * 2)
    return moved


def admits(
    crops: Shaped[np.ndarray, "T 4"], boxes: Float[np.ndarray, "N 4"], min_iou: float
) -> Bool[np.ndarray, " T"]:
    """Which crops hold the centre of an object, one of those overlapping by at least `min_iou`."""
    crops = crops[:, None].astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > crops[..., :2]) & (centres < crops[..., 2:])).all(axis=-1)
    sides = np.minimum(crops[..., 2:], boxes[:, 2:]) - np.maximum(crops[..., :2], boxes[:, :2])
    shared = sides.clip(min=0).prod(axis=-1)
    areas = (crops[..., 2:] - crops[..., :2]).prod(axis=-1)
    union = areas + (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) - shared
    return (inside & (shared >= min_iou * union)).any(axis=1)


def photometric(p: float) -> list[A.ColorJitter]:
    """SSD's colour distortions, each drawn on its own with probability `p`."""
    still: dict[str, tuple[float, float]] = {
        "brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)
    }  # fmt: skip
    ranges = {
        "brightness": (0.875, 1.125),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    if not p:
        return []
    return [A.ColorJitter(**(still | {kind: drawn}), p=p) for kind, drawn in ranges.items()]


class Augment:
    """Draws one augmentation of a sample, the same for the same (seed, epoch, index).

    Args:
        spec: What to draw.
        fill: Colour of canvas beyond the image.
        seed: Of the run.
    """

    def __init__(self, spec: AugmentConfig, fill: tuple[int, int, int], seed: int) -> None:
        self._seed = seed
        self._transform = A.Compose(
            [
                *photometric(spec.photometric),
                *([RandomExpand(spec.expand_max, fill, spec.expand)] if spec.expand else []),
                *([RandomIoUCrop(spec.crop_min_scale, ignore_column=4)] if spec.iou_crop else []),
                # Even at 0: the library warns of boxes that no transform can move.
                A.HorizontalFlip(p=spec.flip),
            ],
            bbox_params=A.BboxParams(
                format="pascal_voc",
                label_fields=["ignore", "rows"],  # columns 4 and 5 behind the box
                clip=True,
                filter_invalid_bboxes=True,
                min_width=1,
                min_height=1,
            ),
        )

    def __call__(self, sample: Sample) -> Sample:
        """The augmented sample; its frame no longer leads back to the file."""
        generator = np.random.default_rng([self._seed, sample.key.epoch, sample.key.index])
        self._transform.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        found = self._transform(
            image=sample.image,
            bboxes=sample.instances.boxes,
            ignore=sample.instances.ignore.astype(np.int64),
            rows=np.arange(len(sample.instances)),
        )
        image = np.ascontiguousarray(found["image"])
        rows = np.asarray(found["rows"], np.int64)
        instances = Instances(
            np.asarray(found["bboxes"], np.float32).reshape(-1, 4),
            sample.instances.labels[rows],
            sample.instances.ignore[rows],
        )
        size = (image.shape[0], image.shape[1])
        return replace(sample, image=image, instances=instances, frame=Frame(size))
