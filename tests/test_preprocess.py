import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mbv2det.geometry import Frame
from mbv2det.preprocess import IMAGENET_MEAN, Preprocessor, PreprocessSpec, downscale
from mbv2det.structures import Instances, Sample, SampleKey


def sample_of(image, boxes=(), frame=None, mask=None):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    instances = Instances(boxes, np.arange(len(boxes)), np.zeros(len(boxes), dtype=bool))
    size = (image.shape[0], image.shape[1])
    return Sample(SampleKey(0, 0), image, frame or Frame(size), instances, mask)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def process(size, sample, resize="stretch", **spec):
    return Preprocessor(PreprocessSpec(size, resize, **spec))(sample)


def test_an_image_of_the_right_size_passes_unchanged():
    sample = sample_of(noise(32, 48))
    assert process((32, 48), sample) is sample


def test_stretch_scales_each_axis_by_its_own_factor():
    # 100 x 200 (h x w) to 320 x 320: y * 3.2, x * 1.6.
    done = process((320, 320), sample_of(noise(100, 200), [[10, 20, 110, 70]]))
    assert done.image.shape == (320, 320, 3)
    assert done.frame == Frame((100, 200), (3.2, 1.6))
    expected = [[16.0, 64.0, 176.0, 224.0]]
    np.testing.assert_allclose(done.instances.boxes, expected, rtol=1e-6)  # float32


def test_fit_scales_both_axes_alike_and_pads_below():
    # The longer side decides: 320 / 200 = 1.6; content is 160 x 320.
    done = process((320, 320), sample_of(noise(100, 200), [[10, 20, 110, 70]]), "fit")
    assert done.image.shape == (320, 320, 3)
    assert done.frame == Frame((100, 200), (1.6, 1.6))
    expected = [[16.0, 32.0, 176.0, 112.0]]
    np.testing.assert_allclose(done.instances.boxes, expected, rtol=1e-6)  # float32
    assert (done.image[160:] == 128).all()
    assert not (done.image[159] == 128).all()


def test_fit_pads_on_the_right_of_a_tall_image():
    done = process((320, 320), sample_of(noise(200, 100)), "fit")
    assert (done.image[:, 160:] == 128).all()
    assert not (done.image[:, 159] == 128).all()


def test_fit_rounds_the_content_to_pixels_and_the_frame_follows():
    # 75 x 100 by 0.32: 24 x 32; 77 x 100: 24.64, so 25 rows and a scale of 25 / 77.
    done = process((32, 32), sample_of(noise(77, 100)), "fit")
    assert (done.image[25:] == 128).all()
    assert done.frame.scale == (25 / 77, 0.32)


def test_fit_keeps_a_thin_image_one_pixel_wide():
    done = process((32, 32), sample_of(noise(1000, 3)), "fit")
    assert done.frame.scale == (0.032, 1 / 3)


@pytest.mark.parametrize(
    ("mean", "fill"),
    [
        ((0.5, 0.5, 0.5), (128, 128, 128)),  # 127.5 rounds up
        (IMAGENET_MEAN, (124, 116, 104)),  # 123.675, 116.28, 103.53
        ((0.0, 1.0, 0.2), (0, 255, 51)),
    ],
)
def test_padding_is_the_mean_colour(mean, fill):
    assert PreprocessSpec((8, 8), mean=mean).fill == fill
    done = process((8, 8), sample_of(np.zeros((2, 4, 3), np.uint8)), "fit", mean=mean)
    assert (done.image[4:] == fill).all()


def ramp(height, width):
    """Grey values from black at the top left to white at the bottom right."""
    rows, columns = np.linspace(0, 127.5, height)[:, None], np.linspace(0, 127.5, width)
    return np.repeat((rows + columns).round().astype(np.uint8)[..., None], 3, axis=2)


def assert_close_to_pil(image, size):
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    difference = np.abs(process(size, sample_of(image)).image.astype(int) - np.asarray(expected))
    # Sums of the same weights, which torch keeps in 16 bits and PIL in 22, round to either side.
    assert difference.max() <= 1
    # On an image whose rows are equal, the difference repeats in every row.
    assert difference.mean() <= 0.25 or difference.size < 1000


SIDES = st.integers(1, 40) | st.integers(41, 900)


@given(SIDES, SIDES, st.tuples(SIDES, SIDES), st.sampled_from([noise, ramp]))
def test_resizing_is_pils_antialiased_bilinear_but_for_rounding(height, width, size, make):
    assert_close_to_pil(make(height, width), size)


@pytest.mark.parametrize("source", [(480, 640), (1080, 1920), (2000, 1500)])
@pytest.mark.parametrize("size", [(300, 300), (320, 320), (513, 513)])
@pytest.mark.parametrize("make", [noise, ramp])
def test_photographs_are_resized_as_by_pil(source, size, make):
    assert_close_to_pil(make(*source), size)


@pytest.mark.parametrize(
    ("source", "size"),
    [((1, 1), (300, 200)), ((5000, 1), (7, 300)), ((1, 5000), (300, 3)), ((300, 200), (1, 1))],
)
def test_sides_of_one_pixel_are_resized_as_by_pil(source, size):
    assert_close_to_pil(noise(*source), size)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_even_colour_stays(value):
    image = np.full((97, 61, 3), value, np.uint8)
    assert (process((40, 300), sample_of(image)).image == value).all()


def test_an_array_that_is_read_only_or_mirrored_is_resized_as_any_other():
    image = noise(30, 20)
    expected = process((10, 10), sample_of(image)).image
    mirrored = process((10, 10), sample_of(np.ascontiguousarray(image[:, ::-1])[:, ::-1]))
    np.testing.assert_array_equal(mirrored.image, expected)
    image.flags.writeable = False
    np.testing.assert_array_equal(process((10, 10), sample_of(image)).image, expected)


def test_resizing_to_a_smaller_size_averages_rather_than_picks():
    # One-pixel stripes, 8 times smaller: antialiasing leaves grey, picking leaves 0 or 255.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    done = process((8, 8), sample_of(stripes)).image.astype(int)
    # The triangle filter weighs even and odd pixels equally but for the outermost columns.
    assert abs(done[:, 1:-1] - 127.5).max() < 3


@pytest.mark.parametrize(
    ("source", "target", "resize"),
    [
        ((240, 480), (80, 96), "stretch"),
        ((240, 480), (96, 96), "fit"),
        ((60, 90), (200, 240), "stretch"),
    ],
)
def test_a_box_stays_on_its_pixels(source, target, resize):
    height, width = source
    box = np.array([width // 5, height // 4, width // 2, height * 3 // 4])
    image = np.zeros((*source, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    done = process(target, sample_of(image, [box]), resize, mean=(0.0, 0.0, 0.0))
    light = done.image[..., 0] / 255
    x_min, y_min, x_max, y_max = done.instances.boxes[0]
    # First moments of a filtered rectangle are those of the rectangle. Its centre would move by
    # half a pixel under the usual mistakes; rounding to 8 bits moves it by under a twentieth.
    columns, rows = np.arange(target[1]) + 0.5, np.arange(target[0]) + 0.5
    centre_x = (light.sum(axis=0) * columns).sum() / light.sum()
    centre_y = (light.sum(axis=1) * rows).sum() / light.sum()
    assert centre_x == pytest.approx((x_min + x_max) / 2, abs=0.05)
    assert centre_y == pytest.approx((y_min + y_max) / 2, abs=0.05)
    # And its area is the box's: half a pixel on one side of these would be over 1 %.
    assert light.sum() == pytest.approx((x_max - x_min) * (y_max - y_min), rel=5e-3)


def test_the_frame_follows_an_earlier_one():
    # The working image is the original halved and shifted by (4, 6); it is then scaled by (3, 2).
    earlier = Frame((500, 400), (0.5, 0.5), (4.0, 6.0))
    done = process((300, 200), sample_of(noise(100, 100), frame=earlier))
    assert done.frame == Frame((500, 400), (1.5, 1.0), (12.0, 12.0))


@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_the_frame_maps_original_boxes_to_the_moved_ones(resize):
    boxes = [[10, 20, 110, 70], [0, 0, 200, 100]]
    done = process((64, 96), sample_of(noise(100, 200), boxes), resize)
    mapped = done.frame.boxes_to_working(np.array(boxes, dtype=np.float32))
    np.testing.assert_allclose(done.instances.boxes, mapped, rtol=1e-6)  # float32


def test_labels_and_ignore_flags_do_not_change():
    sample = sample_of(noise(10, 10), [[1, 1, 5, 5], [2, 2, 9, 9]])
    done = process((20, 20), sample)
    assert done.key == sample.key
    np.testing.assert_array_equal(done.instances.labels, sample.instances.labels)
    np.testing.assert_array_equal(done.instances.ignore, sample.instances.ignore)


def test_an_image_without_objects_has_none_after_preprocessing():
    assert process((20, 20), sample_of(noise(10, 10))).instances.boxes.shape == (0, 4)


def test_missing_annotation_is_still_missing_after_preprocessing():
    done = process((20, 20), Sample(SampleKey(0, 0), noise(10, 10), Frame((10, 10))))
    assert done.instances is None
    assert done.mask is None


def test_mask_of_an_image_of_the_right_size_passes_unchanged():
    mask = np.random.default_rng(0).integers(0, 256, (32, 48), np.uint8)
    assert process((32, 48), sample_of(noise(32, 48), mask=mask)).mask is mask


def test_mask_is_resized_by_picking_the_nearest_pixel():
    # 2 x 3 to 4 x 9: every pixel 2 x 3 times.
    mask = np.array([[7, 0, 255], [20, 1, 3]], np.uint8)
    done = process((4, 9), sample_of(noise(2, 3), mask=mask))
    np.testing.assert_array_equal(done.mask, mask.repeat(2, axis=0).repeat(3, axis=1))
    # And back: the middle of every 2 x 3 pixels.
    back = process((2, 3), sample_of(noise(4, 9), mask=done.mask))
    np.testing.assert_array_equal(back.mask, mask)


@pytest.mark.parametrize("size", [(31, 50), (200, 170), (90, 33)])
def test_resized_mask_has_only_labels_of_the_original(size):
    mask = np.random.default_rng(0).choice(np.array([0, 20, 255], np.uint8), (90, 70))
    done = process(size, sample_of(noise(90, 70), mask=mask))
    assert set(np.unique(done.mask).tolist()) == {0, 20, 255}


@pytest.mark.parametrize(("source", "rows", "columns"), [((50, 100), 16, 32), ((100, 50), 32, 16)])
def test_padding_of_a_mask_is_ignored(source, rows, columns):
    mask = np.full(source, 3, np.uint8)
    done = process((32, 32), sample_of(noise(*source), mask=mask), "fit")
    expected = np.full((32, 32), 255)
    expected[:rows, :columns] = 3
    np.testing.assert_array_equal(done.mask, expected)


def centre_of(weights):
    """Returns (row, column) of the centre of gravity."""
    y, x = np.indices(weights.shape) + 0.5
    return np.array([(weights * y).sum(), (weights * x).sum()]) / weights.sum()


@pytest.mark.parametrize(
    ("source", "target", "resize"),
    [
        ((240, 480), (80, 96), "stretch"),
        ((240, 480), (96, 96), "fit"),
        ((60, 90), (200, 240), "stretch"),
        ((60, 90), (200, 200), "fit"),
        ((77, 101), (96, 96), "fit"),
        ((101, 77), (64, 96), "fit"),
        ((101, 77), (64, 96), "stretch"),
    ],
)
def test_a_mask_stays_on_its_pixels(source, target, resize):
    # A white ellipse is label 1.
    y, x = np.indices(source)
    height, width = source
    inside = ((y / height - 0.4) / 0.3) ** 2 + ((x / width - 0.55) / 0.25) ** 2 < 1
    image = np.repeat(np.uint8(255) * inside[..., None], 3, axis=2)
    mask = inside.astype(np.uint8)
    done = process(target, sample_of(image, mask=mask), resize, mean=(0.0, 0.0, 0.0))
    light, label = done.image[..., 0] / 255, done.mask == 1
    # A pixel has the label where most of it is white, except those that the edge cuts in half.
    assert (label != (light > 0.5)).sum() < 0.02 * label.sum()
    # Picking shifts every edge by up to half a source pixel, which nearly averages out over the
    # ellipse. Rounding half a pixel off would part the centres by 0.5 and more, a pixel by 1.
    np.testing.assert_allclose(centre_of(label), centre_of(light), rtol=0, atol=0.25)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_downscaling_keeps_image_mask_and_boxes_aligned(factor):
    # 25 does not divide evenly: the last square reaches beyond the image.
    mask = np.zeros((25, 36), np.uint8)
    mask[6:18, 12:30] = 200
    boxes = np.array([[12, 6, 30, 18]], np.float32)
    instances = Instances(boxes, np.zeros(1, np.int64), np.zeros(1, bool))
    image = np.repeat(mask[..., None], 3, axis=2)
    reduced = downscale(Sample(SampleKey(0, 0), image, Frame((25, 36)), instances, mask), factor)
    size = (-(-25 // factor), 36 // factor)
    assert reduced.image.shape[:2] == reduced.mask.shape == size
    np.testing.assert_array_equal(reduced.image[..., 0], reduced.mask)
    np.testing.assert_allclose(reduced.frame.boxes_to_working(boxes), reduced.instances.boxes)
    rows, columns = np.nonzero(reduced.mask)
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(reduced.instances.boxes, [extent])
