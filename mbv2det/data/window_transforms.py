"""Random windows onto an image as transforms of albumentations: SSD's and DeepLab's crops.

SSD: Liu et al. 2016 (arXiv:1512.02325), section 2.2 and figure 6. DeepLab: Chen et al. 2017
(arXiv:1706.05587), section 4.1.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from mbv2det.data.colour import ColourDistortion, mean_grey
from mbv2det.data.windows import (
    Size,
    Window,
    are_admissible,
    are_kept,
    cut_out,
    joined,
    move_boxes,
)
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import IGNORE_INDEX


class WindowTransform(A.DualTransform):
    """A transform that replaces the image by a random window onto it, which subclasses draw.

    Beyond the image, pixels get a fill colour and masks `IGNORE_INDEX`. Objects whose centre is
    outside the window are dropped, others clipped; ignored objects are kept while any part of them
    is visible.

    Args:
        fill: Colour of the pixels beyond the image.
        ignore_column: Column of the array of boxes that is 1 for ignored objects; None if there is
            no such column.
        p: Probability of applying it.
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
        """Draws a window for an image of (height, width) `size` with these objects, in pixels."""

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draws the window, which albumentations passes to the `apply` methods."""
        height, width = params["shape"][:2]
        boxes = np.asarray(data["bboxes"], np.float64)
        boxes = boxes[~self._ignored(boxes), :4] if len(boxes) else boxes.reshape(0, 4)
        return {"window": self.draw((height, width), boxes * [width, height, width, height])}

    def apply(
        self, img: UInt8[np.ndarray, "H W 3"], window: Window, **params: Any
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels of the image inside the window."""
        return cut_out(window, img, self.fill)

    def apply_to_mask(
        self, mask: UInt8[np.ndarray, "H W"], window: Window, **params: Any
    ) -> UInt8[np.ndarray, "h w"]:
        """Returns the labels of the mask inside the window."""
        return cut_out(window, mask, IGNORE_INDEX)

    def apply_to_bboxes(
        self, bboxes: Float[np.ndarray, "N M"], window: Window, **params: Any
    ) -> Float[np.ndarray, "K M"]:
        """Returns the boxes to keep as fractions of the window; albumentations clips them."""
        top, left, bottom, right = window
        moved = move_boxes(bboxes, params["shape"][:2], (bottom - top, right - left), (-top, -left))
        return moved[are_kept(moved, (1, 1), self._ignored(moved))]

    def _ignored(self, boxes: Float[np.ndarray, "N M"]) -> Bool[np.ndarray, " N"]:
        if self.ignore_column is None or not len(boxes):
            return np.zeros(len(boxes), np.bool_)
        return boxes[:, self.ignore_column] > 0


class RandomExpand(WindowTransform):
    """SSD's zoom out: the image at a random position on a larger canvas of the same aspect ratio.

    Args:
        max_ratio: Largest ratio of the canvas's sides to the image's, drawn uniformly from 1 up.
        fill: Colour of the canvas.
        p: Probability of applying the transform.
    """

    def __init__(self, max_ratio: float, fill: tuple[int, int, int], p: float) -> None:
        super().__init__(fill, p=p)
        self.max_ratio = max_ratio

    def draw(self, size: Size, boxes: Float[np.ndarray, "N 4"]) -> Window:
        """Draws a window that contains the image."""
        height, width = size
        ratio = self.random_generator.uniform(1, self.max_ratio)
        canvas = int(height * ratio), int(width * ratio)
        top = int(self.random_generator.integers(canvas[0] - height + 1))
        left = int(self.random_generator.integers(canvas[1] - width + 1))
        return -top, -left, canvas[0] - top, canvas[1] - left


class RandomIoUCrop(WindowTransform):
    """SSD's crop: a random crop that overlaps some object by at least a random IoU.

    For each sample one of `min_ious` is drawn, then `trials` crops with sides of `min_scale` to 1
    (as fractions of the image's) and aspect ratios of 1/2 to 2. The first crop that contains the
    centre of an object and overlaps this object by the drawn IoU is used; if there is none, another
    IoU is drawn. An IoU of 1 leaves the image unchanged. For an image without objects the first
    crop is used. Ignored objects have no influence on the crop.

    Args:
        fill: Colour of the pixels beyond the image; not used, since crops lie inside the image.
        min_scale: Smallest side of a crop, as a fraction of the image's side.
        min_ious: Smallest IoUs to draw from, all equally likely.
        trials: Number of crops drawn for each IoU.
        ignore_column: Column of the array of boxes that is 1 for ignored objects; None if there is
            no such column.
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
        """Draws a window inside the image."""
        height, width = size
        while True:
            min_iou = self.min_ious[self.random_generator.integers(len(self.min_ious))]
            if min_iou >= 1:
                return 0, 0, height, width
            crops = self._candidates(height, width)
            usable = (
                np.flatnonzero(are_admissible(crops, boxes, min_iou)) if len(boxes) else range(1)
            )
            if len(usable) and len(crops):
                left, top, right, bottom = (int(v) for v in crops[usable[0]])
                return top, left, bottom, right

    def _candidates(self, height: int, width: int) -> Shaped[np.ndarray, "T 4"]:
        draws = self.random_generator.random((self.trials, 4))
        sides = (self.min_scale + (1 - self.min_scale) * draws[:, :2]) * [width, height]
        sides = sides.astype(np.int64)
        corner = (([width, height] - sides) * draws[:, 2:]).astype(np.int64)
        narrow, wide = 2 * sides[:, 0] < sides[:, 1], sides[:, 0] > 2 * sides[:, 1]
        valid = ~narrow & ~wide & (sides > 0).all(axis=1)
        return np.concatenate([corner, corner + sides], axis=1)[valid]


class RandomScaleCrop(WindowTransform):
    """DeepLab's random scaling and cropping to the size of the network input.

    The scale is relative to the scale of the image in evaluation. The window is cut out of the
    unscaled image, and the `Preprocessor` resizes it to the network input: pixels are resampled
    once, by the resize rule of the weights. An image smaller than the window lies at its top left,
    as a padded image does in evaluation.

    Args:
        scales: Smallest and largest scale; the scale is drawn uniformly.
        preprocessor: Preprocessor that resizes the window.
        ignore_column: Column of the array of boxes that is 1 for ignored objects; None if there is
            no such column.

    Source: Chen et al. 2017 (arXiv:1706.05587), section 4.1; TensorFlow deeplab
    `input_preprocess.py`; differs: TensorFlow draws the scale in steps of 0.25.
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
        """Draws a window that has the size of the network input after scaling."""
        scale = self.random_generator.uniform(*self.scales)
        sides = zip(self.preprocessor.spec.size, self.preprocessor.frame(size).scale, strict=True)
        height, width = (max(1, round(side / (base_scale * scale))) for side, base_scale in sides)
        top = int(self.random_generator.integers(max(0, size[0] - height) + 1))
        left = int(self.random_generator.integers(max(0, size[1] - width) + 1))
        return top, left, top + height, left + width


class ColourWindow(WindowTransform):
    """Several windows one after the other, and SSD's colour distortions, in one pass.

    Only pixels that are left are distorted, and never the fill.

    Args:
        windows: Windows, each onto the one before, with their own probabilities. All before the
            last have to contain the whole image.
        photometric: Probability of each colour distortion.
        fill: Colour of the pixels beyond the image.
        ignore_column: Column of the array of boxes that is 1 for ignored objects.
    """

    def __init__(
        self,
        windows: Sequence[WindowTransform],
        photometric: float,
        fill: tuple[int, int, int],
        ignore_column: int,
    ) -> None:
        super().__init__(fill, ignore_column=ignore_column)
        self.windows = tuple(windows)
        self.photometric = photometric

    def set_random_state(self, random_generator: Any, py_random: Any) -> None:
        """Sets the generators of this transform and of its windows."""
        super().set_random_state(random_generator, py_random)
        for window in self.windows:
            window.set_random_state(random_generator, py_random)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draws the colours, then the windows."""
        colours = ColourDistortion.draw(self.py_random, self.photometric)
        drawn = super().get_params_dependent_on_data(params, data)
        return drawn | {"colours": colours}

    def draw(self, size: Size, boxes: Float[np.ndarray, "N 4"]) -> Window:
        """Draws all windows and returns them as one window onto the image."""
        whole = 0, 0, *size
        for transform in self.windows:
            if transform.should_apply():
                top, left, bottom, right = whole
                moved = boxes - [left, top, left, top]
                whole = joined(whole, transform.draw((bottom - top, right - left), moved))
        return whole

    def apply(
        self, img: UInt8[np.ndarray, "H W 3"], window: Window, **params: Any
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the distorted pixels of the image inside the window."""
        change: ColourDistortion = params["colours"]
        return cut_out(window, img, self.fill, lambda inside: change.apply(inside, mean_grey(img)))
