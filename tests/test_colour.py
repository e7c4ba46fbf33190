"""SSD's colour distortions: against albumentations' own, one after the other, in distribution."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest

from mbv2det.augment_config import AugmentConfig
from mbv2det.data.augment import Augment
from mbv2det.data.colour import ColourDistortion, mean_grey
from mbv2det.data.windows import cut_out, joined
from mbv2det.geometry import Frame
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import Instances, Sample, SampleKey

RANGES = {
    "brightness": (0.875, 1.125), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5),
    "hue": (-0.05, 0.05),
}  # fmt: skip
NEUTRAL = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}


@pytest.fixture
def photograph():
    """Returns smooth colours of 40 to 200, which a single distortion does not drive to the limits.

    Smooth, so that the mean of some of the pixels is the mean of all.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(80, 160, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    ("name", "value"),
    [("brightness", 1.1), ("contrast", 0.6), ("contrast", 1.3), ("saturation", 0.5),
     ("saturation", 1.4), ("hue", 0.05), ("hue", -0.05)],
)  # fmt: skip
def test_each_distortion_is_that_of_albumentations(photograph, name, value):
    reference = A.ColorJitter(**(NEUTRAL | {name: (value, value)}), p=1)(image=photograph)["image"]
    ours = ColourDistortion(**{name: value}).apply(photograph, mean_grey(photograph))
    # The greys are rounded there, and the mean is of a sixteenth of the pixels here.
    assert np.abs(ours.astype(int) - reference).max() <= (0 if name == "hue" else 2)


def test_several_distortions_are_those_one_after_the_other(photograph):
    change = ColourDistortion(brightness=0.9, contrast=1.2, saturation=0.7, hue=0.03)
    expected = photograph
    for name in ("brightness", "contrast", "saturation", "hue"):
        value = getattr(change, name)
        jitter = A.ColorJitter(**(NEUTRAL | {name: (value, value)}), p=1)
        expected = jitter(image=expected)["image"]
    ours = change.apply(photograph, mean_grey(photograph))
    # Rounded once instead of three times, which hue amplifies in pale colours.
    difference = np.abs(ours.astype(int) - expected)
    assert difference.mean() < 1
    assert difference.max() <= 6


def test_nothing_drawn_changes_nothing(photograph):
    assert ColourDistortion.draw(random.Random(0), p=0) == ColourDistortion()
    assert ColourDistortion().apply(photograph, 0.0) is photograph


def test_draws_have_the_ranges_and_probabilities_of_ssd():
    generator = random.Random(0)
    draws = [ColourDistortion.draw(generator, p=0.5) for _ in range(4000)]
    for name, (low, high) in RANGES.items():
        values = np.array([getattr(draw, name) for draw in draws])
        drawn = values[values != NEUTRAL[name][0]]
        assert abs(len(drawn) / len(values) - 0.5) < 4 * 0.5 / np.sqrt(4000)
        assert low <= drawn.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < drawn.max() <= high
        # Uniform: 4 standard errors of the mean of 2000 draws.
        assert abs(drawn.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * 2000)


def statistics(images):
    """Returns mean and standard deviation of each channel over images, one row an image."""
    return np.array([[*image.mean(axis=(0, 1)), *image.std(axis=(0, 1))] for image in images])


def test_augmented_images_have_the_statistics_of_separate_distortions(photograph):
    # The four distortions of albumentations one after the other, on whole images.
    separate = A.Compose(
        [A.ColorJitter(**(NEUTRAL | {name: limits}), p=0.5) for name, limits in RANGES.items()]
    )
    separate.set_random_state(np.random.default_rng(0), random.Random(0))
    expected = statistics(separate(image=photograph)["image"] for _ in range(1500))
    preprocessor = Preprocessor(PreprocessSpec((48, 64)))
    config = AugmentConfig(flip=0, expand=0, iou_crop=False)
    augment = Augment(config, preprocessor, seed=0)
    none = Instances(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool))
    ours = statistics(
        augment(Sample(SampleKey(0, i), photograph, Frame((48, 64)), none)).image
        for i in range(1500)
    )
    errors = np.sqrt((expected.var(axis=0) + ours.var(axis=0)) / 1500)
    # Rounding moves a mean by less than half a grey value.
    assert (np.abs(expected.mean(axis=0) - ours.mean(axis=0)) < 4 * errors + 0.5).all()
    ratio = ours.std(axis=0) / expected.std(axis=0)
    # 4 standard errors of a standard deviation of 1500 draws: 4 / sqrt(3000) on each side.
    np.testing.assert_allclose(ratio, 1, atol=0.11)


def test_the_fill_is_not_distorted():
    image = np.full((16, 16, 3), 60, np.uint8)
    preprocessor = Preprocessor(PreprocessSpec((16, 16)))
    config = AugmentConfig(flip=0, expand=1, iou_crop=False, photometric=1)
    augment = Augment(config, preprocessor, seed=0)
    none = Instances(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool))
    for index in range(20):
        pixels = augment(Sample(SampleKey(0, index), image, Frame((16, 16)), none)).image
        colours = np.unique(pixels.reshape(-1, 3), axis=0)
        assert len(colours) <= 2
        assert pixels.shape == (16, 16, 3) or (128, 128, 128) in map(tuple, colours.tolist())


def test_joined_windows_cut_out_what_one_after_the_other_does():
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    for first, second in (
        ((-3, -5, 20, 30), (1, 2, 9, 21)),
        ((-3, -5, 20, 30), (0, 0, 3, 5)),  # nothing of the image is left
        ((-3, -5, 20, 30), (4, 6, 30, 50)),  # it reaches beyond the first
    ):
        once = cut_out(joined(first, second), image, (1, 2, 3))
        twice = cut_out(second, cut_out(first, image, (1, 2, 3)), (1, 2, 3))
        np.testing.assert_array_equal(once, twice)


def test_a_scaled_window_does_not_bring_back_what_a_crop_has_cut_off():
    # Half of the image is white, and its object is in the other half.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    box = Instances(np.array([[2, 2, 20, 60]], np.float32), np.zeros(1, int), np.zeros(1, bool))
    preprocessor = Preprocessor(PreprocessSpec((64, 64)))
    config = AugmentConfig(flip=0, expand=0, photometric=0, scale=(0.9, 0.9))
    scaled = Augment(config, preprocessor, seed=0)
    cropped = Augment(AugmentConfig(flip=0, expand=0, photometric=0), preprocessor, seed=0)
    narrow = 0
    for index in range(60):
        sample = Sample(SampleKey(0, index), image, Frame((64, 64)), box)
        crop, window = cropped(sample).image, scaled(sample).image
        assert (window == 255).sum() == (crop == 255).sum()
        narrow += crop.shape[1] < 64
    assert narrow > 10
