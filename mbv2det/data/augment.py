"""SSD's and DeepLab's augmentation on albumentations, for boxes and masks alike.

SSD: Liu et al. 2016, section 2.2 and its figure 6. DeepLab: Chen et al. 2017, section 4.1.

The only file that imports albumentations. Every random draw of a sample comes from one generator
made of (seed, epoch, index), so workers, their number and a restart change nothing; albumentations'
own seeding would give all transforms the same stream.
"""

import os
import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from mbv2det.config import AugmentConfig
from mbv2det.geometry import Frame
from mbv2det.preprocess import Preprocessor, downscale
from mbv2det.structures import IGNORE_INDEX, NO_INSTANCES, Instances, Sample

_LABEL_FIELDS = ("ignore", "rows")  # columns of the boxes' array behind the four corners


Size = tuple[int, int]
Window = tuple[int, int, int, int]  # top, left, bottom, right in pixels of the image


class WindowTransform(A.DualTransform):
    """Shows the image through a window that a subclass draws and that may reach beyond the image.

    Beyond it lies the mean colour, and nothing to be learnt. Objects whose centre is outside the
    window are dropped, the others clipped. Ignored objects stay while any of them shows: what
    shows of a crowd must not be learnt as background.

    Args:
        fill: Colour beyond the image.
        ignore_column: Of the boxes' array, which is 1 for an ignored object; None where there is
            no such column.
        p: Probability of doing so.
    """

    _targets = (
        A.core.type_definitions.Targets.IMAGE,
        A.core.type_definitions.Targets.MASK,
        A.core.type_definitions.Targets.BBOXES,
    )

    def __init__(
        self, fill: tuple[int, int, int], *, ignore_column: int | None = None, p: float = 1.0
    ) -> None:
        super().__init__(p=p)
        self.fill = fill
        self.ignore_column = ignore_column

    @abstractmethod
    def draw(self, size: Size, boxes: Float[np.ndarray, "N 4"]) -> Window:
        """Draws the window for an image of (height, width) and its objects, in pixels."""

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """What the library hands on to the methods below."""
        height, width = params["shape"][:2]
        boxes = np.asarray(data["bboxes"], np.float64)
        boxes = boxes[~self._ignored(boxes), :4] if len(boxes) else boxes.reshape(0, 4)
        return {"window": self.draw((height, width), boxes * [width, height, width, height])}

    def apply(
        self, img: UInt8[np.ndarray, "H W 3"], window: Window, **params: Any
    ) -> UInt8[np.ndarray, "h w 3"]:
        """What the window shows."""
        return _through(window, img, self.fill)

    def apply_to_mask(
        self, mask: UInt8[np.ndarray, "H W"], window: Window, **params: Any
    ) -> UInt8[np.ndarray, "h w"]:
        """The labels of what the window shows."""
        return _through(window, mask, IGNORE_INDEX)

    def apply_to_bboxes(
        self, bboxes: Float[np.ndarray, "N M"], window: Window, **params: Any
    ) -> Float[np.ndarray, "K M"]:
        """Boxes whose centre is inside, as fractions of the window; the library clips them."""
        top, left, bottom, right = window
        moved = move_boxes(bboxes, params["shape"][:2], (bottom - top, right - left), (-top, -left))
        centres = (moved[:, :2] + moved[:, 2:4]) / 2
        inside = ((centres > 0) & (centres < 1)).all(axis=1)
        touching = (np.minimum(moved[:, 2:4], 1) > np.maximum(moved[:, :2], 0)).all(axis=1)
        return moved[inside | (self._ignored(moved) & touching)]

    def _ignored(self, boxes: Float[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
        if self.ignore_column is None or not len(boxes):
            return np.zeros(len(boxes), np.bool_)
        return boxes[:, self.ignore_column] > 0


def _through(
    window: Window, pixels: UInt8[np.ndarray, "H W ..."], fill: int | tuple[int, int, int]
) -> UInt8[np.ndarray, "h w ..."]:
    top, left, bottom, right = window
    height, width = pixels.shape[:2]
    inside = pixels[max(0, top) : bottom, max(0, left) : right]
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return inside
    canvas = np.empty((bottom - top, right - left, *pixels.shape[2:]), np.uint8)
    canvas[:] = fill
    y, x = max(0, -top), max(0, -left)
    canvas[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return canvas


class RandomExpand(WindowTransform):
    """SSD's zooming out: the image somewhere on a larger canvas of the same aspect ratio.

    Args:
        max_ratio: Side of the largest canvas, in sides of the image.
        fill: Colour of the canvas.
        p: Probability of doing so.
    """

    def __init__(self, max_ratio: float, fill: tuple[int, int, int], p: float) -> None:
        super().__init__(fill, p=p)
        self.max_ratio = max_ratio

    def draw(self, size: Size, boxes: Float[np.ndarray, "N 4"]) -> Window:
        """A window around the image."""
        height, width = size
        ratio = self.random_generator.uniform(1, self.max_ratio)
        canvas = int(height * ratio), int(width * ratio)
        top = int(self.random_generator.integers(canvas[0] - height + 1))
        left = int(self.random_generator.integers(canvas[1] - width + 1))
        return -top, -left, canvas[0] - top, canvas[1] - left


class RandomIoUCrop(WindowTransform):
    """SSD's crop: some object keeps at least a drawn overlap with it.

    Of each sample, one of `min_ious` is drawn, then up to `trials` crops with sides of
    `min_scale` to 1 and aspect ratios of 1/2 to 2; the first that holds the centre of an object
    and overlaps one of those by the drawn IoU is taken, else another IoU is drawn. An IoU of 1
    leaves the image alone. Without objects any crop will do; ignored ones do not steer it.

    Args:
        fill: Colour beyond the image, which no crop shows.
        min_scale: Of the crop's sides.
        min_ious: Drawn from evenly.
        trials: For each draw.
        ignore_column: As in `WindowTransform`.
    """

    def __init__(
        self,
        fill: tuple[int, int, int] = (0, 0, 0),
        min_scale: float = 0.3,
        min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
        ignore_column: int | None = None,
    ) -> None:
        super().__init__(fill, ignore_column=ignore_column)
        self.min_scale = min_scale
        self.min_ious = tuple(min_ious)
        self.trials = trials

    def draw(self, size: Size, boxes: Float[np.ndarray, "N 4"]) -> Window:
        """A window within the image."""
        height, width = size
        while True:
            min_iou = self.min_ious[self.random_generator.integers(len(self.min_ious))]
            if min_iou >= 1:
                return 0, 0, height, width
            crops = self._candidates(height, width)
            usable = np.flatnonzero(admits(crops, boxes, min_iou)) if len(boxes) else range(1)
            if len(usable) and len(crops):
                left, top, right, bottom = (int(v) for v in crops[usable[0]])
                return top, left, bottom, right

    def _candidates(self, height: int, width: int) -> Shaped[np.ndarray, "T 4"]:
        draws = self.random_generator.random((self.trials, 4))
        sides = (self.min_scale + (1 - self.min_scale) * draws[:, :2]) * [width, height]
        sides = sides.astype(np.int64)
        corner = (([width, height] - sides) * draws[:, 2:]).astype(np.int64)
        narrow, wide = 2 * sides[:, 0] < sides[:, 1], sides[:, 0] > 2 * sides[:, 1]
        fine = ~narrow & ~wide & (sides > 0).all(axis=1)
        return np.concatenate([corner, corner + sides], axis=1)[fine]


class RandomScaleCrop(WindowTransform):
    """DeepLab's scale and crop: what the network's input shows of the image scaled at random.

    The scale is relative to the one that evaluation would show the image at. The window is cut
    from the unscaled image, and the `Preprocessor` brings it to size: pixels are resampled once,
    by the rule of the weights. An image smaller than the window lies at its top left, as
    evaluation pads.

    Args:
        scales: Smallest and largest; drawn evenly (TensorFlow: in steps of 0.25).
        preprocessor: Which will bring the window to size.
        ignore_column: As in `WindowTransform`.

    Source: Chen et al. 2017 (arXiv:1706.05587), section 4.1; TensorFlow deeplab
    `input_preprocess.py`.
    """

    def __init__(
        self,
        scales: tuple[float, float],
        preprocessor: Preprocessor,
        ignore_column: int | None = None,
    ) -> None:
        super().__init__(preprocessor.spec.fill, ignore_column=ignore_column)
        self.scales = scales
        self.preprocessor = preprocessor

    def draw(self, size: Size, boxes: Float[np.ndarray, "N 4"]) -> Window:
        """A window that comes to be of the network's input size when scaled."""
        scale = self.random_generator.uniform(*self.scales)
        shown = zip(self.preprocessor.spec.size, self.preprocessor.frame(size).scale, strict=True)
        height, width = (max(1, round(side / (own * scale))) for side, own in shown)
        top = int(self.random_generator.integers(max(0, size[0] - height) + 1))
        left = int(self.random_generator.integers(max(0, size[1] - width) + 1))
        return top, left, top + height, left + width


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
        preprocessor: Which the samples go to next.
        seed: Of the run.
    """

    def __init__(self, spec: AugmentConfig, preprocessor: Preprocessor, seed: int) -> None:
        self._seed = seed
        self._preprocessor = preprocessor
        self._largest_scale = None if spec.scale is None else spec.scale[1]
        fill = preprocessor.spec.fill
        ignore_column = 4 + _LABEL_FIELDS.index("ignore")
        windows: list[WindowTransform] = []
        if spec.expand:
            windows.append(RandomExpand(spec.expand_max, fill, spec.expand))
        if spec.iou_crop:
            windows.append(RandomIoUCrop(fill, spec.crop_min_scale, ignore_column=ignore_column))
        if spec.scale is not None:
            windows.append(RandomScaleCrop(spec.scale, preprocessor, ignore_column))
        self._transform = A.Compose(
            [
                *photometric(spec.photometric),
                *windows,
                # Even at 0: the library warns of boxes that no transform can move.
                A.HorizontalFlip(p=spec.flip),
            ],
            bbox_params=A.BboxParams(
                format="pascal_voc",
                label_fields=list(_LABEL_FIELDS),
                clip=True,
                filter_invalid_bboxes=True,
                min_width=1,
                min_height=1,
            ),
        )

    def _excess(self, size: Size) -> int:
        """By how much an image is finer than even the largest random scale shows it.

        A photograph of 12 megapixels would otherwise be cut at full size, on a canvas of 150 MB.
        """
        if self._largest_scale is None:
            return 1
        shown = max(self._preprocessor.frame(size).scale) * self._largest_scale
        return max(1, int(1 / shown))

    def __call__(self, sample: Sample) -> Sample:
        """The augmented sample; its frame no longer leads back to the file."""
        sample = downscale(sample, self._excess(sample.image.shape[:2]))
        generator = np.random.default_rng([self._seed, sample.key.epoch, sample.key.index])
        self._transform.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        objects = sample.instances or NO_INSTANCES
        targets = {} if sample.mask is None else {"mask": sample.mask}
        found = self._transform(
            image=sample.image,
            bboxes=objects.boxes,
            ignore=objects.ignore.astype(np.int64),
            rows=np.arange(len(objects)),
            **targets,
        )
        image = np.ascontiguousarray(found["image"])
        rows = np.asarray(found["rows"], np.int64)
        boxes = np.asarray(found["bboxes"], np.float32).reshape(-1, 4)
        instances = Instances(boxes, objects.labels[rows], objects.ignore[rows])
        return replace(
            sample,
            image=image,
            frame=Frame((image.shape[0], image.shape[1])),
            instances=None if sample.instances is None else instances,
            mask=None if sample.mask is None else np.ascontiguousarray(found["mask"]),
        )
