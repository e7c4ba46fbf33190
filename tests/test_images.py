import numpy as np
import pytest
from PIL import Image, ImageFile

from mbv2det.data.images import image_size, read_image
from mbv2det.data.mask_reading import MaskReading
from mbv2det.errors import DataError

ORIENTATION = 0x0112  # EXIF's tag
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def turned(tmp_path):
    """Returns a JPEG of 20x30 stored pixels, red left, blue right, to be rotated clockwise."""
    stored = Image.new("RGB", (30, 20), BLUE)
    stored.paste(RED, (0, 0, 15, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    return tmp_path / "turned.jpg"


def is_colour(pixel, colour):
    """Compares colours up to JPEG's rounding; the tested colours differ by 255."""
    return np.abs(pixel.astype(int) - colour).max() < 10


def test_channels_are_red_green_blue(tmp_path):
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "a.png")
    image, faults = read_image(tmp_path / "a.png")
    assert image.shape == (2, 3, 3)
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [10, 20, 30]
    assert faults == ()


def test_orientation_tag_is_applied(turned):
    # Turned clockwise, what was left comes up.
    image, _ = read_image(turned)
    assert image.shape == (30, 20, 3)
    assert is_colour(image[2, 10], RED)
    assert is_colour(image[-3, 10], BLUE)


def test_orientation_tag_is_applied_if_the_annotation_agrees(turned):
    image, _ = read_image(turned, (30, 20))
    assert is_colour(image[2, 10], RED)


def test_orientation_tag_is_not_applied_if_the_annotation_has_the_stored_size(turned):
    image, _ = read_image(turned, (20, 30))
    assert image.shape == (20, 30, 3)
    assert is_colour(image[10, 2], RED)
    assert is_colour(image[10, -3], BLUE)


def test_size_other_than_annotated_is_an_error_naming_both(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"a\.png: expected an image of 40x50 pixels, .* got one of 20x30"
    ):
        read_image(tmp_path / "a.png", (40, 50))


def test_height_and_width_exchanged_is_an_error_without_orientation(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"expected an image of 30x20 pixels, .* got one of 20x30"):
        read_image(tmp_path / "a.png", (30, 20))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_file_is_read_exactly(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}")[0], pixels)


def test_grayscale_is_repeated_over_the_channels(tmp_path, pixels):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    expected = np.repeat(pixels[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], expected)


def test_palette_image_is_converted(tmp_path):
    image = Image.new("P", (3, 2), 1)
    image.putpalette([*RED, *GREEN])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png")
    pixels, _ = read_image(tmp_path / "a.png")
    assert pixels[0, 0].tolist() == list(RED)
    assert pixels[1, 2].tolist() == list(GREEN)


def test_palette_image_with_transparency_is_converted(tmp_path):
    image = Image.new("P", (3, 2), 1)
    image.putpalette([*RED, *GREEN])
    image.save(tmp_path / "a.png", transparency=b"\x80\xff")
    assert read_image(tmp_path / "a.png")[0][0, 0].tolist() == list(GREEN)


def test_transparency_is_left_out(tmp_path, pixels):
    alpha = np.full((20, 30, 1), 128, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], pixels)


def test_cmyk_is_converted(tmp_path):
    # No cyan, all magenta and yellow: red.
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert is_colour(read_image(tmp_path / "a.jpg")[0][8, 8], RED)


def test_16_bits_are_scaled_to_8(tmp_path):
    # 0x1234 >> 8 = 0x12 and so on; clipping would give 255 for all but the first.
    values = np.array([[0x0034, 0x1234, 0x80FF, 0xFFFF]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image, _ = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    for channel in range(3):
        assert image[0, :, channel].tolist() == [0x00, 0x12, 0x80, 0xFF]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_truncated_file_gives_a_fault_and_its_pixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    original, _ = read_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    image, faults = read_image(path)
    assert len(faults) == 1
    assert faults[0].startswith("truncated")
    assert image.shape == original.shape
    # BMP stores the last row first; a third of the rows keeps off the JPEG blocks around the cut.
    intact = slice(-21, None) if suffix == "bmp" else slice(None, 21)
    np.testing.assert_array_equal(image[intact], original[intact])
    assert (image != original).any()


def test_reading_a_truncated_file_leaves_pil_strict(tmp_path, pixels):
    path = tmp_path / "a.bmp"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    read_image(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n"])
def test_file_that_is_no_image_is_one_error_naming_it(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg: ") as caught:
        read_image(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)


def test_jpeg_cut_in_its_header_is_an_error(tmp_path, pixels):
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.jpg: "):
        read_image(path)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg: expected an image file, found none"):
        read_image(tmp_path / "none.jpg")


def test_broken_orientation_tag_is_ignored(tmp_path, pixels):
    exif = Image.Exif()
    exif[ORIENTATION] = 99
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], pixels)


def test_broken_exif_block_is_ignored(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], pixels)


def test_real_truncated_photo_is_read(real_data):
    image, faults = read_image(real_data("kangaroo") / "images/00090.jpg")
    assert image.shape == (393, 590, 3)
    assert faults[0].startswith("truncated")


def test_real_bmp_is_read(real_data):
    image, faults = read_image(real_data("photos") / "cat.bmp")
    assert image.shape == (341, 512, 3)
    assert faults == ()


def test_a_path_may_be_text(tmp_path):
    Image.new("RGB", (4, 3), "red").save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png"))[0].shape == (3, 4, 3)


def test_enormous_image_is_an_error_before_it_is_decoded(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # the limit is twice that, the image 600
    with pytest.raises(DataError, match=r"a\.png: expected at most 0 million pixels, got more"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "error", [TypeError("x"), ZeroDivisionError(), KeyError(7), IndexError("y")]
)
def test_whatever_a_decoder_raises_is_one_line_with_the_file(tmp_path, monkeypatch, pixels, error):
    def fail(*_):
        raise error

    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    for read in (read_image, MaskReading().read):
        with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(.+\)$"):
            read(path)


def test_damaged_tags_leave_the_size_as_stored(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff")
    assert image_size(tmp_path / "a.png") == pixels.shape[:2]
