import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mbv2det.augment_config import AugmentConfig
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.data.annotations import Annotations
from mbv2det.data.augment import Augment
from mbv2det.data.dataset import AnnotatedImages, read_sample, read_usable_sample
from mbv2det.data.images import read_image, read_reduced
from mbv2det.data.index_masks import IndexMasks
from mbv2det.data.objects import Objects
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap
from mbv2det.preprocess import Preprocessor, PreprocessSpec, downscale
from mbv2det.structures import SampleKey

ORIENTATION = 0x0112
QUARTER_TURN = 6


def smooth(height, width):
    """A picture without detail, which JPEG keeps nearly as it is."""
    rows, columns = np.linspace(0, 200, height)[:, None], np.linspace(0, 55, width)[None]
    channels = [rows + columns, 255 - rows - columns, rows + 0 * columns]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def save(path, pixels, orientation=1):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, quality=95, exif=exif)
    return path


def by(factor):
    return lambda size: factor


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(160, 240), (161, 243), (33, 47)])
def test_every_pixel_is_close_to_the_mean_of_its_square(tmp_path, size, factor):
    path = save(tmp_path / "a.jpg", smooth(*size))
    decoded = read_reduced(path, by(factor))
    whole = Image.fromarray(read_image(path)[0])
    assert (decoded.size, decoded.factor, decoded.faults) == (size, factor, ())
    assert decoded.pixels.shape == (-(-size[0] // factor), -(-size[1] // factor), 3)
    if factor == 1:
        np.testing.assert_array_equal(decoded.pixels, whole)
        return
    # Of 255; a smooth picture. The last squares of an odd size contain pixels beyond it.
    inside = slice(0, size[0] // factor), slice(0, size[1] // factor)
    mean = np.asarray(whole.reduce(factor)).astype(int)[inside]
    assert np.abs(decoded.pixels.astype(int)[inside] - mean).max() <= 4


def test_other_formats_are_read_whole(tmp_path):
    Image.fromarray(smooth(64, 64)).save(tmp_path / "a.png")
    decoded = read_reduced(tmp_path / "a.png", by(4))
    assert (decoded.factor, decoded.pixels.shape) == (1, (64, 64, 3))


def test_a_turned_photo_is_reduced_upright(tmp_path):
    path = save(tmp_path / "a.jpg", smooth(64, 96), QUARTER_TURN)
    asked = []
    decoded = read_reduced(path, lambda size: asked.append(size) or 2)
    assert asked == [(96, 64)]
    assert (decoded.size, decoded.pixels.shape) == ((96, 64), (48, 32, 3))
    as_stored = read_reduced(path, by(2), (64, 96))
    assert (as_stored.size, as_stored.pixels.shape) == ((64, 96), (32, 48, 3))
    upright = read_reduced(path, by(2), (96, 64))
    np.testing.assert_array_equal(upright.pixels, decoded.pixels)


def test_another_size_than_annotated_is_refused_to_the_pixel(tmp_path):
    path = save(tmp_path / "a.jpg", smooth(64, 96))
    with pytest.raises(DataError, match=r"an image of 64x95 pixels.* got one of 64x96"):
        read_reduced(path, by(8), (64, 95))


def test_a_truncated_file_is_reduced_too(tmp_path):
    path = save(tmp_path / "a.jpg", smooth(256, 256))
    path.write_bytes(path.read_bytes()[:-900])
    decoded = read_reduced(path, by(2))
    assert decoded.pixels.shape == (128, 128, 3)
    assert decoded.faults == ("truncated: the missing part is blank",)


def split_of(folder, size):
    """One photograph with a box and a mask, painted where they are."""
    pixels, mask = np.full((*size, 3), (20, 150, 200), np.uint8), np.zeros(size, np.uint8)
    mask[48:112, 64:160] = 1
    pixels[mask == 1] = (255, 0, 0)
    save(folder / "a.jpg", pixels)
    Image.fromarray(mask).save(folder / "a.png")
    z = np.zeros(1, bool)
    objects = Objects(
        LabelMap(("red",), (1,)), ~z, np.array([0, 1]), np.array([[64.0, 48, 160, 112]]),
        np.zeros(1, np.int64), np.ones(1), z, z,
    )  # fmt: skip
    masks = IndexMasks.of(LabelMap.of_masks(["background", "red"]), [str(folder / "a.png")])
    names = np.array([str(folder / "a.jpg")])
    return Annotations("split", names, names, np.array([size]), objects, masks)


@pytest.mark.parametrize("size", [(160, 240), (161, 243)])
def test_box_and_mask_are_reduced_with_the_image_as_by_downscale(tmp_path, size):
    split, key = split_of(tmp_path, size), SampleKey(0, 0)
    whole, reduced = read_sample(split, key), read_sample(split, key, by(2))
    expected = downscale(whole, 2)
    assert reduced.frame == expected.frame
    np.testing.assert_array_equal(reduced.instances.boxes, [[32, 24, 80, 56]])
    np.testing.assert_array_equal(reduced.mask, expected.mask)
    np.testing.assert_array_equal(reduced.mask[24:56, 32:80], 1)
    np.testing.assert_array_equal(reduced.original_mask, whole.original_mask)
    assert (reduced.image[26:54, 34:78, 0] > 230).all()
    assert (reduced.image[:20, :, 1] > 100).all()
    skipping = read_usable_sample(split, key, by(2))
    np.testing.assert_array_equal(skipping.image, reduced.image)


SSD, DEEPLAB = AugmentConfig(), AugmentConfig(iou_crop=False, scale=(0.5, 2.0))


@pytest.mark.parametrize(
    ("config", "size", "factor"),
    [
        (SSD, (480, 640), 1),
        (SSD, (3000, 4000), 2),  # a crop of 0.3 of 1500 rows has 450 >= 320; of 750 only 225
        (AugmentConfig(crop_min_scale=1.0), (3000, 4000), 8),  # 375 rows
        (AugmentConfig(iou_crop=False), (2400, 3000), 4),  # 600 rows; an eighth has 300
        (DEEPLAB, (3000, 4000), 4),  # twice 320 are at most 750
        (AugmentConfig(reduced_decoding=False), (30000, 40000), 1),
        (AugmentConfig(transforms=({"class_path": "albumentations.Blur"},)), (30000, 40000), 1),
    ],
)
def test_factor_of_hand_worked_examples(config, size, factor):
    augment = Augment(config, Preprocessor(PreprocessSpec((320, 320))), 0)
    assert augment.decoding_factor(size) == factor


@given(
    st.tuples(st.integers(20, 9000), st.integers(20, 9000)),
    st.sampled_from(["stretch", "fit"]),
    st.floats(0.1, 1.0),
    st.none() | st.tuples(st.just(0.5), st.floats(0.5, 3.0)),
)
def test_the_smallest_crop_is_never_enlarged_by_the_reduction(size, resize, min_scale, scale):
    preprocessor = Preprocessor(PreprocessSpec((96, 160), resize))
    config = AugmentConfig(crop_min_scale=min_scale, scale=scale)
    factor = Augment(config, preprocessor, 0).decoding_factor(size)
    if factor == 1:
        return
    frame, zoom = preprocessor.frame(size), scale[1] if scale else 1.0
    for side, working in zip(size, frame.scale, strict=True):
        # Of a crop of `min_scale` of the side, the part that fills the input at the largest scale.
        assert min_scale * side / factor / zoom >= side * working * (1 - 1e-9)


def test_training_reduces_and_evaluation_does_not(tmp_path):
    config = runs.write_config(tmp_path, num_train=4, num_val=2)
    settings = SettingsParser("").parse([str(config)])
    data = RunParts.read(settings).data()
    assert data.train_dataloader().dataset.reduction((5000, 5000)) == 8
    assert data.val_dataloader().dataset.reduction((5000, 5000)) == 1


def test_augmented_boxes_follow_the_pixels_of_a_reduced_photo(tmp_path):
    split = split_of(tmp_path, (640, 960))
    preprocessor = Preprocessor(PreprocessSpec((64, 96)))
    config = AugmentConfig(photometric=0, expand=0, crop_min_scale=0.5)
    augment = Augment(config, preprocessor, 0)
    assert augment.decoding_factor((640, 960)) == 4
    data = AnnotatedImages(split, preprocessor, augment, reduction=augment.decoding_factor)
    for epoch in range(20):
        sample = data[SampleKey(epoch, 0)]
        red = (sample.image[..., 0] > 200) & (sample.image[..., 1] < 60)
        for box in sample.instances.boxes:
            rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
            bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            # Pixels of the border mix both colours: one of the input, two of the crop.
            np.testing.assert_allclose(box, bounds, atol=3)
