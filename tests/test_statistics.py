"""Statistics of a split. Those of masks are tested where splits are read."""

from dataclasses import replace

import numpy as np
import pytest

from mbv2det.data.coco import read_coco
from mbv2det.data.statistics import network_boxes
from mbv2det.preprocess import Preprocessor, PreprocessSpec

PREPROCESSOR = Preprocessor(PreprocessSpec((64, 96)))


@pytest.fixture
def split(tmp_path, make_coco):
    return read_coco(*make_coco(tmp_path))


def test_network_boxes_are_in_pixels_of_the_network_input(split):
    # Sizes are (40, 30), (30, 40) twice and (50, 36); the crowd of the second image is left out.
    boxes = [
        np.multiply([1.5, 2, 9.5, 32.5], [96 / 30, 64 / 40] * 2),
        np.multiply([4, 5, 24, 15], [96 / 40, 64 / 30] * 2),
        np.multiply([10, 8, 16, 14], [96 / 40, 64 / 30] * 2),
        np.multiply([6, 6, 26, 36], [96 / 36, 64 / 50] * 2),
    ]
    # One rounding to float32 of numbers below 128.
    np.testing.assert_allclose(network_boxes(split, PREPROCESSOR), boxes, rtol=0, atol=1e-5)


def test_network_boxes_come_from_evenly_spaced_images(split):
    # Of five images the first, which has one object, and the last, which has one.
    boxes = network_boxes(split, PREPROCESSOR, most=2)
    np.testing.assert_array_equal(boxes, network_boxes(split, PREPROCESSOR)[[0, -1]])


def test_images_without_annotated_size_have_no_network_boxes(split):
    unknown = replace(split, sizes=np.zeros_like(split.sizes))
    boxes = network_boxes(unknown, PREPROCESSOR)
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32
