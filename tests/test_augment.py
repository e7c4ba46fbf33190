from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from mbv2det.augment_config import AugmentConfig
from mbv2det.data.augment import Augment
from mbv2det.data.window_transforms import RandomIoUCrop
from mbv2det.data.windows import are_admissible
from mbv2det.geometry import Frame
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessor, PreprocessSpec
from mbv2det.structures import Instances, Sample, SampleKey

FILL = (124, 116, 104)
PREPROCESSOR = Preprocessor(PreprocessSpec((120, 160), "fit", IMAGENET_MEAN, IMAGENET_STD))
GEOMETRY = AugmentConfig(photometric=0.0)
FLIP = AugmentConfig(flip=1.0, photometric=0.0, expand=0.0, iou_crop=False)
EXPAND = AugmentConfig(flip=0.0, photometric=0.0, expand=1.0, iou_crop=False)
CROP = AugmentConfig(flip=0.0, photometric=0.0, expand=0.0)
STILL = AugmentConfig(flip=0.0, photometric=0.0, expand=0.0, iou_crop=False)
SCALE = replace(STILL, scale=(0.5, 2.0))

# Objects of several sizes that do not overlap, one up to the corner, in a scene of (H, W).
SIZE = (120, 160)
BOXES = np.array(
    [[0, 0, 30, 24], [40, 10, 110, 90], [120, 20, 150, 70], [5, 60, 35, 110], [60, 95, 160, 120]],
    np.float32,
)


def sample_of(image, boxes, epoch=0, index=0, ignore=False, mask=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes))
    instances = Instances(boxes, labels, (labels % 2 == 1) & ignore)
    return Sample(SampleKey(epoch, index), image, Frame(image.shape[:2]), instances, mask)


def painted(boxes, size=SIZE):
    """Returns a black image, with every box filled with a different colour."""
    image = np.zeros((*size, 3), np.uint8)
    for i, (x_min, y_min, x_max, y_max) in enumerate(np.asarray(boxes, int)):
        image[y_min:y_max, x_min:x_max] = (200, 10 * i, 50)
    return image


def labelled(boxes, size=SIZE):
    """Returns the mask of the painted scene: label i + 1 in box i, zeros elsewhere."""
    mask = np.zeros(size, np.uint8)
    for i, (x_min, y_min, x_max, y_max) in enumerate(np.asarray(boxes, int)):
        mask[y_min:y_max, x_min:x_max] = i + 1
    return mask


def colours_of(mask):
    """Returns the painted scene that belongs to a mask; what is ignored has the fill's colour."""
    colours = np.array([(0, 0, 0), *((200, 10 * i, 50) for i in range(254)), FILL])
    return colours[mask]


def extent(image, colour):
    """Returns the box around the pixels of a colour."""
    rows, columns = np.nonzero((image == colour).all(axis=2))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def draws(config, count, boxes=BOXES, size=SIZE, preprocessor=PREPROCESSOR):
    augment = Augment(config, preprocessor, seed=0)
    image, mask = painted(boxes, size), labelled(boxes, size)
    return [augment(sample_of(image, boxes, epoch, mask=mask)) for epoch in range(count)]


@pytest.fixture(scope="module")
def scenes():
    """Returns flips, expansions and crops of one scene."""
    return draws(GEOMETRY, 200)


@pytest.fixture(scope="module")
def ignoring_scenes():
    """Returns the same scenes with every other object ignored."""
    augment, image = Augment(GEOMETRY, PREPROCESSOR, seed=0), painted(BOXES)
    return [augment(sample_of(image, BOXES, epoch, ignore=True)) for epoch in range(200)]


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_same_key_gives_the_same_sample(noise):
    first, second = (
        Augment(AugmentConfig(), PREPROCESSOR, 5)(sample_of(noise, [[3, 4, 30, 40]], 2, 7))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.instances.boxes, second.instances.boxes)


def test_earlier_samples_do_not_change_later_ones(noise):
    used, fresh = (Augment(AugmentConfig(), PREPROCESSOR, 5) for _ in range(2))
    for index in range(5):
        used(sample_of(noise, [[3, 4, 30, 40]], 0, index))
    again = [augment(sample_of(noise, [[3, 4, 30, 40]], 2, 7)) for augment in (used, fresh)]
    np.testing.assert_array_equal(again[0].image, again[1].image)


def test_every_seed_epoch_and_index_has_its_own_stream(noise):
    # Expansion draws a real number, so that no two streams agree by chance.
    seen = {
        Augment(EXPAND, PREPROCESSOR, seed)(sample_of(noise, [], epoch, index)).image.tobytes()
        for seed, epoch, index in product(range(4), repeat=3)
    }
    assert len(seen) == 64


def test_input_is_not_written_to(noise):
    before = noise.copy()
    for epoch in range(10):
        Augment(AugmentConfig(), PREPROCESSOR, 0)(sample_of(noise, [[3, 4, 30, 40]], epoch))
    np.testing.assert_array_equal(noise, before)


def test_everything_off_changes_nothing(noise):
    off = AugmentConfig(flip=0.0, photometric=0.0, expand=0.0, iou_crop=False)
    augmented = Augment(off, PREPROCESSOR, 0)(sample_of(noise, [[3, 4, 30, 40]]))
    np.testing.assert_array_equal(augmented.image, noise)
    # Fractions of the image in float32, times at most 64.
    np.testing.assert_allclose(augmented.instances.boxes, [[3, 4, 30, 40]], atol=1e-4)


def test_flip_mirrors_columns_and_boxes(noise):
    augmented = Augment(FLIP, PREPROCESSOR, 0)(sample_of(noise, [[3, 4, 30, 40]]))
    np.testing.assert_array_equal(augmented.image, noise[:, ::-1])
    # x: 64 - 30 and 64 - 3.
    np.testing.assert_allclose(augmented.instances.boxes, [[34, 4, 61, 40]], atol=1e-4)


def test_boxes_follow_the_pixels_of_their_objects(scenes):
    kept = 0
    for scene in scenes:
        for box, label in zip(scene.instances.boxes, scene.instances.labels, strict=True):
            kept += 1
            # Crops and canvases are whole pixels; boxes pass through float32 fractions of < 700.
            expected = extent(scene.image, (200, 10 * label, 50))
            np.testing.assert_allclose(box, expected, rtol=0, atol=1e-3)
    assert kept > len(scenes)


def test_labels_and_ignore_stay_with_their_boxes(ignoring_scenes):
    for scene in ignoring_scenes:
        objects = scene.instances
        np.testing.assert_array_equal(objects.ignore, objects.labels % 2 == 1)
        colours = [scene.image[int(y), int(x), 1] for x, y in objects.boxes[:, :2] + 0.5]
        assert colours == [10 * label for label in objects.labels]


def test_objects_are_dropped_only_by_crops_without_their_centre(scenes):
    for scene in scenes:
        for label in set(range(len(BOXES))) - set(scene.instances.labels.tolist()):
            # With its centre outside, at most half of an object is left in one direction.
            visible = (scene.image == (200, 10 * label, 50)).all(axis=2)
            width, height = BOXES[label, 2:] - BOXES[label, :2]
            columns, rows = visible.any(axis=0).sum(), visible.any(axis=1).sum()
            assert columns <= width / 2 or rows <= height / 2


def test_frame_is_that_of_the_new_image(scenes):
    assert all(scene.frame == Frame(scene.image.shape[:2]) for scene in scenes)


def test_canvas_has_colour_and_aspect_ratio_and_contains_the_image(noise):
    for epoch in range(30):
        image = Augment(EXPAND, PREPROCESSOR, 0)(sample_of(noise, [], epoch)).image
        height, width = image.shape[:2]
        # Both sides are rounded down: 64 / 48 of the height, or one column of rounding off.
        assert abs(width - height * 64 / 48) <= 64 / 48 + 1
        assert 48 <= height <= 4 * 48
        assert (image == FILL).all(axis=2).sum() >= height * width - 48 * 64
        inside = (image != FILL).any(axis=2)
        # All but the few pixels of the noise that happen to have the colour: 1 in 2^24.
        assert inside.sum() >= 48 * 64 - 1


def test_canvas_sides_are_uniform_up_to_the_largest(noise):
    # Mean of uniform(1, 4) is 2.5, less 1/96 of rounding; 4 standard errors of 0.87 / sqrt(300).
    augment = Augment(EXPAND, PREPROCESSOR, 0)
    ratios = [augment(sample_of(noise, [], e)).image.shape[0] / 48 for e in range(300)]
    assert abs(np.mean(ratios) - (2.5 - 1 / 96)) < 4 * 0.87 / np.sqrt(300)


def test_flip_and_expansion_are_drawn_independently():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8] = (255, 0, 0)
    image[:, 8:] = (0, 0, 255)
    config = AugmentConfig(photometric=0.0, iou_crop=False)
    augment = Augment(config, PREPROCESSOR, seed=0)
    decisions = []
    for epoch in range(400):
        augmented = augment(sample_of(image, [], epoch)).image
        red, blue = (extent(augmented, colour) for colour in ((255, 0, 0), (0, 0, 255)))
        decisions.append((red[0] > blue[0], augmented.shape != image.shape))
    flipped, expanded = np.array(decisions, float).T
    # 4 standard errors of 400 draws: 0.5 / 20 of a share, 1 / 20 of a correlation. One canvas in
    # 3 * 16 rounds down to the image's own size.
    assert abs(flipped.mean() - 0.5) < 0.1
    assert abs(expanded.mean() - 0.5 * 47 / 48) < 0.1
    assert abs(np.corrcoef(flipped, expanded)[0, 1]) < 0.2


def test_colour_distortions_are_drawn_independently():
    # A colour whose green and blue are alike, which hue alone tells apart.
    image = np.full((4, 4, 3), (160, 80, 80), np.uint8)
    config = AugmentConfig(flip=0.0, expand=0.0, iou_crop=False)
    augment = Augment(config, PREPROCESSOR, seed=0)
    augmented = np.array([augment(sample_of(image, [], e)).image[0, 0] for e in range(400)], int)
    untouched = (augmented == image[0, 0]).all(axis=1).mean()
    # None of four at 1/2 each: 1/16; within 4 standard errors. A draw may round to no change, which
    # only few do: another hundredth.
    assert abs(untouched - 1 / 16) < 4 * np.sqrt(15 / 256 / 400) + 0.01
    # Hue at 1/2, less the draws too small to be seen; 4 standard errors would be 0.1.
    parted = (augmented[:, 1] != augmented[:, 2]).mean()
    assert 0.35 < parted < 0.6


def test_colour_distortions_do_not_change_boxes():
    config = AugmentConfig(flip=0.0, expand=0.0, iou_crop=False, photometric=1.0)
    (augmented,) = draws(config, 1)
    assert (augmented.image != painted(BOXES)).any()
    np.testing.assert_allclose(augmented.instances.boxes, BOXES, atol=1e-4)


def kept_by_torchvision(count):
    crop = v2.Compose([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()])
    image = tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(BOXES), format="XYXY", canvas_size=SIZE)
    target = {"boxes": boxes, "labels": torch.arange(len(BOXES))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        augmented = [crop(image, target) for _ in range(count)]
    return [(*image.shape[-2:], len(target["labels"])) for image, target in augmented]


@pytest.fixture(scope="module")
def crops():
    """Returns (height, width, objects kept) of many crops, ours and torchvision's."""
    count = 800
    ours = [(*s.image.shape[:2], len(s.instances)) for s in draws(CROP, count)]
    return np.array(ours), np.array(kept_by_torchvision(count))


@pytest.mark.parametrize(
    "statistic",
    [
        pytest.param(lambda rows: rows[:, 2] / len(BOXES), id="share of objects kept"),
        pytest.param(lambda rows: rows[:, 0] * rows[:, 1], id="area"),
        pytest.param(lambda rows: rows[:, 1] / rows[:, 0], id="aspect ratio"),
        pytest.param(lambda rows: (rows[:, :2] == SIZE).all(axis=1), id="left alone"),
    ],
)
def test_crops_have_the_distribution_of_torchvisions(crops, statistic):
    first, second = (statistic(rows).astype(float) for rows in crops)
    # 4 standard errors of the difference of the means.
    error = np.sqrt((first.var() + second.var()) / len(first))
    assert error > 0
    assert abs(first.mean() - second.mean()) < 4 * error


def iou_with_centre_inside(crop, box):
    """Returns the IoU of one pair; 0 if the centre of the box is outside the crop."""
    left, top, right, bottom = crop
    x_min, y_min, x_max, y_max = box
    x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
    if not (left < x < right and top < y < bottom):
        return 0.0
    shared = (min(right, x_max) - max(left, x_min)) * (min(bottom, y_max) - max(top, y_min))
    areas = (right - left) * (bottom - top) + (x_max - x_min) * (y_max - y_min)
    return shared / (areas - shared)


@pytest.mark.parametrize("min_iou", [0.0, 0.1, 0.3, 0.5])
def test_admissible_crops_equal_a_brute_force_search(min_iou):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (200, 2))
    crops = np.concatenate([corners, corners + rng.uniform(20, 100, (200, 2))], axis=1)
    ious = [[iou_with_centre_inside(crop, box) for box in BOXES] for crop in crops]
    best = np.max(ious, axis=1)
    expected = (best > 0) & (best >= min_iou)
    assert 0 < expected.sum() < 200
    np.testing.assert_array_equal(are_admissible(crops, BOXES, min_iou), expected)


@pytest.mark.parametrize("min_iou", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_crop_overlaps_an_object_by_the_drawn_iou(min_iou):
    boxes = np.concatenate([BOXES, [[20, 15, 150, 110]]])
    transform = RandomIoUCrop(min_ious=(min_iou,))
    transform.set_random_seed(0)
    relative = boxes / [*SIZE[::-1], *SIZE[::-1]]
    for _ in range(20):
        drawn = transform.get_params_dependent_on_data({"shape": SIZE}, {"bboxes": relative})
        top, left, bottom, right = drawn["window"]
        best = max(iou_with_centre_inside((left, top, right, bottom), box) for box in boxes)
        assert best > 0
        assert best >= min_iou - 1e-9  # the boxes pass through fractions of the image
        assert 0 <= top < bottom <= SIZE[0]
        assert 0 <= left < right <= SIZE[1]
        assert 0.5 <= (right - left) / (bottom - top) <= 2


def test_iou_of_one_does_not_change_the_image():
    transform = RandomIoUCrop(min_ious=(1.0,))
    drawn = transform.get_params_dependent_on_data({"shape": SIZE}, {"bboxes": BOXES[:0]})
    assert drawn == {"window": (0, 0, *SIZE)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2), (120, 160)])
def test_images_without_objects_are_augmented(size):
    for augmented in draws(AugmentConfig(), 30, boxes=BOXES[:0], size=size):
        assert augmented.instances.boxes.shape == (0, 4)
        assert len(augmented.instances) == 0
        assert min(augmented.image.shape[:2]) >= 1


def test_crops_have_sides_from_the_smallest_scale_up():
    config = AugmentConfig(flip=0.0, photometric=0.0, expand=0.0, crop_min_scale=0.5)
    sizes = np.array([s.image.shape[:2] for s in draws(config, 100, boxes=BOXES[:0])])
    assert (sizes >= np.array(SIZE) / 2).all()
    # Of some 85 draws from 0.5 to 1, one lies below 0.55 but for 1 in 8000 (0.9 ** 85).
    assert (sizes.min(axis=0) < np.array(SIZE) * 0.55).all()


def test_images_without_objects_are_cropped():
    sizes = {augmented.image.shape for augmented in draws(CROP, 30, boxes=BOXES[:0])}
    assert len(sizes) > 20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300)])
def test_tiny_images_with_an_object_are_augmented(size):
    boxes = np.array([[0, 0, size[1], size[0]]], np.float32)
    for augmented in draws(AugmentConfig(expand=0.0), 30, boxes=boxes, size=size):
        assert min(augmented.image.shape[:2]) >= 1


def test_boxes_under_a_pixel_are_dropped():
    boxes = [[10, 10, 10.5, 30], [10, 10, 30, 10.5], [10, 10, 12, 12]]
    augmented = Augment(FLIP, PREPROCESSOR, 0)(sample_of(np.zeros((48, 64, 3), np.uint8), boxes))
    assert augmented.instances.labels.tolist() == [2]


def test_box_of_the_whole_image_covers_the_whole_augmented_image():
    boxes = np.array([[0, 0, 160, 120]], np.float32)
    for augmented in draws(CROP, 20, boxes=boxes):
        height, width = augmented.image.shape[:2]
        np.testing.assert_allclose(augmented.instances.boxes, [[0, 0, width, height]], atol=1e-3)


@st.composite
def scenes_with_edges(draw):
    """Returns an image size, and boxes of at least two pixels, many at the image's edge."""
    height, width = draw(st.integers(2, 90)), draw(st.integers(2, 90))
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        x_min = draw(st.sampled_from([0.0, width / 3, width - 2.0]))
        y_min = draw(st.sampled_from([0.0, height / 7, height - 2.0]))
        x_max = draw(st.sampled_from([float(width), min(width, x_min + 2)]))
        y_max = draw(st.sampled_from([float(height), min(height, y_min + 2)]))
        boxes.append([x_min, y_min, x_max, y_max])
    return (height, width), boxes


@settings(max_examples=40)
@given(scenes_with_edges(), st.integers(0, 1000))
def test_augmented_boxes_lie_in_the_image_and_have_a_pixel(scene, epoch):
    size, boxes = scene
    augmented = Augment(AugmentConfig(), PREPROCESSOR, 0)(
        sample_of(np.zeros((*size, 3), np.uint8), boxes, epoch)
    )
    height, width = augmented.image.shape[:2]
    objects = augmented.instances
    assert augmented.image.dtype == np.uint8
    assert augmented.image.flags.c_contiguous
    assert objects.boxes.dtype == np.float32
    assert (objects.boxes >= 0).all()
    assert (objects.boxes <= [width, height, width, height]).all()
    # Sides of at least one pixel, up to float32 rounding of coordinates below 400.
    assert (objects.boxes[:, 2:] - objects.boxes[:, :2] > 1 - 1e-3).all()
    assert set(objects.labels.tolist()) <= set(range(len(boxes)))


def test_a_crowd_is_kept_in_every_crop_that_overlaps_it():
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, 70:] = 255  # the crowd
    instances = Instances(
        np.array([[5, 40, 45, 80], [70, 0, 160, 120]], np.float32),
        np.zeros(2, np.int64),
        np.array([False, True]),
    )
    crop_only = AugmentConfig(flip=0, photometric=0, expand=0)
    augment = Augment(crop_only, PREPROCESSOR, seed=0)
    cut = 0
    for index in range(200):
        sample = Sample(SampleKey(0, index), image, Frame((120, 160)), instances)
        augmented = augment(sample)
        columns = np.flatnonzero((augmented.image == 255).all(axis=(0, 2)))
        crowd = augmented.instances.boxes[augmented.instances.ignore]
        assert len(crowd) == (len(columns) > 0)
        if len(columns) and len(columns) < 45:  # its centre is outside
            cut += 1
            assert crowd[0, 0] == pytest.approx(columns[0], abs=1e-3)
    assert cut > 10


@pytest.fixture(scope="module")
def scaled():
    """Returns scaled, cropped and flipped copies of one scene."""
    return draws(replace(SCALE, flip=0.5), 200)


@pytest.mark.parametrize("kind", ["scenes", "scaled"])
def test_mask_follows_the_pixels_of_the_image(kind, request):
    # Windows and flips move whole pixels; nothing is resampled here.
    seen = set()
    for scene in request.getfixturevalue(kind):
        assert scene.mask.flags.c_contiguous
        np.testing.assert_array_equal(scene.image, colours_of(scene.mask))
        seen |= set(np.unique(scene.mask).tolist())
    assert seen == {*range(len(BOXES) + 1), 255}


def test_boxes_follow_the_pixels_of_scaled_scenes(scaled):
    for scene in scaled:
        for box, label in zip(scene.instances.boxes, scene.instances.labels, strict=True):
            expected = extent(scene.image, (200, 10 * label, 50))
            # Fractions in float32 of at most 320 pixels.
            np.testing.assert_allclose(box, expected, rtol=0, atol=1e-3)


def test_colour_distortions_do_not_change_masks():
    (augmented,) = draws(replace(STILL, photometric=1.0), 1)
    assert (augmented.image != painted(BOXES)).any()
    np.testing.assert_array_equal(augmented.mask, labelled(BOXES))


@pytest.mark.parametrize("config", [AugmentConfig(), replace(SCALE, flip=0.5)])
def test_random_draws_do_not_depend_on_the_mask(config):
    augment, image = Augment(config, PREPROCESSOR, seed=0), painted(BOXES)
    for epoch, with_mask in enumerate(draws(config, 20)):
        without = augment(sample_of(image, BOXES, epoch))
        assert without.mask is None
        np.testing.assert_array_equal(with_mask.image, without.image)


@pytest.mark.parametrize("config", [AugmentConfig(), replace(SCALE, flip=0.5)])
def test_image_without_annotated_objects_has_none_after_augmentation(config):
    augment = Augment(config, PREPROCESSOR, seed=0)
    for epoch in range(10):
        sample = sample_of(painted(BOXES), [], epoch, mask=labelled(BOXES))
        augmented = augment(replace(sample, instances=None))
        assert augmented.instances is None
        np.testing.assert_array_equal(augmented.mask, augment(sample).mask)


def test_mask_of_the_input_is_not_written_to():
    mask = labelled(BOXES)
    augment = Augment(replace(SCALE, flip=1.0), PREPROCESSOR, seed=0)
    for epoch in range(10):
        augment(sample_of(painted(BOXES), BOXES, epoch, mask=mask))
    np.testing.assert_array_equal(mask, labelled(BOXES))


def stretch_to(*size):
    return Preprocessor(PreprocessSpec(size, "stretch", IMAGENET_MEAN, IMAGENET_STD))


@pytest.mark.parametrize(
    ("size", "preprocessor"),
    [
        ((120, 160), PREPROCESSOR),
        ((60, 160), PREPROCESSOR),  # padded below
        ((240, 200), stretch_to(120, 160)),
        ((75, 100), stretch_to(120, 160)),
    ],
)
def test_scale_of_one_gives_the_image_of_evaluation(size, preprocessor):
    # Where padding is not scaled, which would mix its colour with that of the image's edge.
    (augmented,) = draws(replace(STILL, scale=(1.0, 1.0)), 1, BOXES[:1], size, preprocessor)
    shown = preprocessor(augmented)
    plain = sample_of(painted(BOXES[:1], size), BOXES[:1], mask=labelled(BOXES[:1], size))
    expected = preprocessor(plain)
    np.testing.assert_array_equal(shown.image, expected.image)
    np.testing.assert_array_equal(shown.mask, expected.mask)
    np.testing.assert_allclose(shown.instances.boxes, expected.instances.boxes, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "preprocessor", "own"),
    [
        ((120, 160), PREPROCESSOR, (1, 1)),
        ((300, 200), PREPROCESSOR, (0.4, 0.4)),  # 120 / 300 is the smaller
        ((300, 200), stretch_to(120, 160), (0.4, 0.8)),
    ],
)
def test_scales_are_uniform_around_that_of_evaluation(size, preprocessor, own):
    shapes = [s.image.shape[:2] for s in draws(SCALE, 300, BOXES[:0], size, preprocessor)]
    # The window is the input's size in pixels of the image: 120 / (own * scale), 160 / ... .
    scales = np.array([(120, 160)]) / own / np.array(shapes)
    # Windows of at least 60 pixels are rounded by half of one.
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], rtol=0.02)
    drawn = scales.mean(axis=1)
    assert drawn.min() > 0.5 * 0.99
    assert drawn.max() < 2.0 * 1.01
    # Mean of uniform(0.5, 2) is 1.25; 4 standard errors of 1.5 / sqrt(12 * 300). And tails: none
    # of 300 in a twentieth of the range happens once in 5 million.
    assert abs(drawn.mean() - 1.25) < 4 * 1.5 / np.sqrt(12 * 300)
    assert drawn.min() < 0.575
    assert drawn.max() > 1.925


def test_image_smaller_than_the_window_lies_top_left():
    for augmented in draws(replace(STILL, scale=(0.51, 0.51)), 5):  # 120 / 0.51, 160 / 0.51
        assert augmented.image.shape == (235, 314, 3)
        np.testing.assert_array_equal(augmented.image[:120, :160], painted(BOXES))
        np.testing.assert_array_equal(augmented.mask[:120, :160], labelled(BOXES))
        assert (augmented.image[120:] == FILL).all()
        assert (augmented.image[:, 160:] == FILL).all()
        assert (augmented.mask[120:] == 255).all()
        assert (augmented.mask[:, 160:] == 255).all()


def test_windows_cover_all_of_a_larger_image():
    # Every pixel names its place; windows of 60 x 80 may start at 0..60 and 0..80.
    y, x = np.indices(SIZE)
    image = np.stack([y, x, 0 * x], axis=2).astype(np.uint8)
    augment = Augment(replace(STILL, scale=(2.0, 2.0)), PREPROCESSOR, seed=0)
    augmented = [augment(sample_of(image, [], epoch)).image for epoch in range(300)]
    assert {image.shape for image in augmented} == {(60, 80, 3)}
    corners = np.array([image[0, 0, :2] for image in augmented])
    # Of 300 draws of 61 and 81 values each end comes up within 4 but for 1 in 10 ** 6.
    assert (corners.min(axis=0) < 4).all()
    assert (corners.max(axis=0) > (56, 76)).all()
    assert abs(np.corrcoef(corners.T)[0, 1]) < 4 / np.sqrt(300)


@pytest.mark.parametrize("resize", ["stretch", "fit"])
@pytest.mark.parametrize("size", [(120, 160), (240, 200), (90, 60)])
def test_scaled_scenes_have_the_size_of_the_input(size, resize):
    preprocessor = Preprocessor(PreprocessSpec((96, 128), resize))
    for augmented in draws(SCALE, 20, BOXES[:1], size, preprocessor):
        shown = preprocessor(augmented)
        assert shown.image.shape == (96, 128, 3)
        assert shown.mask.shape == (96, 128)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2)])
def test_tiny_images_are_scaled_and_cropped(size):
    for augmented in draws(SCALE, 30, BOXES[:0], size):
        assert min(augmented.image.shape[:2]) >= 1
        assert augmented.mask.shape == augmented.image.shape[:2]


def test_a_photograph_is_reduced_to_its_size_at_the_largest_scale():
    config = AugmentConfig(flip=0, photometric=0, expand=0, iou_crop=False, scale=(0.5, 2.0))
    augmented = Augment(config, PREPROCESSOR, 0)(sample_of(np.zeros((1200, 1600, 3), np.uint8), []))
    # Shown at 0.1 of its size, at most at 0.2: a fifth of it, 320 wide, is cut, twice that at 0.5.
    assert max(augmented.image.shape) <= 641
