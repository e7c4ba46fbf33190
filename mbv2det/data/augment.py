"""Random augmentation of boxes and masks as in SSD and DeepLab, built on albumentations.

SSD: Liu et al. 2016 (arXiv:1512.02325), section 2.2 and figure 6. DeepLab: Chen et al. 2017
(arXiv:1706.05587), section 4.1.

All random numbers of a sample come from one generator seeded with (seed, epoch, index): workers and
restarts change nothing. albumentations would give all transforms the same random numbers.
"""

from collections.abc import Collection

import albumentations as A
import numpy as np

from mbv2det.augment_config import AugmentConfig
from mbv2det.data.sample_transform import IGNORE_COLUMN, SampleTransform
from mbv2det.data.user_transforms import UserTransforms
from mbv2det.data.window_transforms import (
    ColourWindow,
    RandomExpand,
    RandomIoUCrop,
    RandomScaleCrop,
    WindowTransform,
)
from mbv2det.data.windows import Size
from mbv2det.preprocess import Preprocessor, downscale
from mbv2det.structures import Sample, SampleKey

_JPEG_FACTORS = (1, 2, 4, 8)


class Augment:
    """The random augmentation of a sample, a function of (seed, epoch, index, repeat).

    Args:
        spec: Settings of the augmentation.
        preprocessor: Preprocessor that the augmented samples are passed to.
        seed: Seed of the run.
        annotation: What the samples are annotated with: boxes, masks or both.

    Raises:
        ConfigError: If a transform of the user's cannot be used.
    """

    def __init__(
        self,
        spec: AugmentConfig,
        preprocessor: Preprocessor,
        seed: int,
        annotation: Collection[str] = ("boxes", "masks"),
    ) -> None:
        self._seed = seed
        self._preprocessor = preprocessor
        self._largest_scale = None if spec.scale is None else spec.scale[1]
        self._reduces = spec.reduced_decoding and not spec.transforms
        smallest_crop = spec.crop_min_scale if spec.iou_crop else 1.0
        self._largest_zoom = (self._largest_scale or 1.0) / smallest_crop
        self._own = SampleTransform(_own_transforms(spec, preprocessor))
        self._users = UserTransforms(spec.transforms, preprocessor.spec, annotation)

    def _reduction(self, size: Size) -> int:
        """Returns the whole factor by which an image exceeds its size at the largest random scale.

        Without it, a photograph of 12 megapixels would be cropped on a canvas of 150 MB.
        """
        if self._largest_scale is None:
            return 1
        scale = max(self._preprocessor.frame(size).scale) * self._largest_scale
        return max(1, int(1 / scale))

    def decoding_factor(self, size: Size) -> int:
        """Returns by what factor a JPEG may be reduced while it is decoded: 1, 2, 4 or 8.

        Every crop still has at least as many pixels as the network input. With transforms of the
        user's the factor is 1: they may count in pixels.
        """
        if not self._reduces:
            return 1
        scale = max(self._preprocessor.frame(size).scale) * self._largest_zoom
        return max(factor for factor in _JPEG_FACTORS if factor == 1 or factor * scale <= 1)

    def __call__(self, sample: Sample) -> Sample:
        """Returns the augmented sample; its frame no longer refers to the original file."""
        sample = downscale(sample, self._reduction(sample.image.shape[:2]))
        generator = np.random.default_rng(seed_of(self._seed, sample.key))
        return self._users(self._own(sample, generator), generator)


def seed_of(seed: int, key: SampleKey) -> list[int]:
    """Returns the seed of all random numbers of a sample."""
    return [seed, key.epoch, key.index, *([key.repeat] if key.repeat else [])]


def _own_transforms(spec: AugmentConfig, preprocessor: Preprocessor) -> list[A.DualTransform]:
    fill = preprocessor.spec.fill
    windows: list[WindowTransform] = []
    if spec.expand:
        windows.append(RandomExpand(spec.expand_max, fill, spec.expand))
    if spec.iou_crop:
        windows.append(RandomIoUCrop(fill, spec.crop_min_scale, ignore_column=IGNORE_COLUMN))
    later: list[WindowTransform] = []
    if spec.scale is not None:
        # What a crop has cut off stays out of the scaled window, which may be larger.
        scaled = RandomScaleCrop(spec.scale, preprocessor, IGNORE_COLUMN)
        (later if spec.iou_crop else windows).append(scaled)
    return [
        ColourWindow(windows, spec.photometric, fill, IGNORE_COLUMN),
        *later,
        # Also with p=0: albumentations warns of boxes if no transform can move them.
        A.HorizontalFlip(p=spec.flip),
    ]
