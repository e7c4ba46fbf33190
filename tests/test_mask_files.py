"""Masks by colour, in one of several channels, and by patterns of names."""

import numpy as np
import pytest
from conftest import write_noise
from PIL import Image

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.mask_reading import MaskReading
from mbv2det.data.name_patterns import NamePatterns
from mbv2det.data.splits import read_split
from mbv2det.errors import ConfigError, DataError

CLASSES = ("background", "road", "tree")
COLORS = ((0, 0, 0), (128, 64, 128), (107, 142, 35))
VOID = (255, 255, 255)
INDEX = np.array([[0, 1, 2, 1], [2, 2, 0, 0], [0, 0, 1, 1]], np.uint8)


def save(root, pixels, mode=None, name="masks/a.png"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(path)
    return root


def read(root, split=None, **data):
    for name in ("a",):
        if not (root / "images").exists():
            write_noise(root / f"images/{name}.jpg", 3, 4)
    config = DataConfig(**{"root": str(root), "format": "folder", "classes": CLASSES} | data)
    where = SplitConfig(**(split or {}))
    return read_split(config, where, "data.train", boxes=False, masks=True)


def in_colors(index, colors=(*COLORS, VOID)):
    return np.array(colors, np.uint8)[index]


def test_colours_are_the_classes_in_their_order(tmp_path):
    annotations = read(save(tmp_path, in_colors(INDEX)), mask_colors=COLORS)
    np.testing.assert_array_equal(annotations.mask(0), INDEX)


def test_a_colour_may_be_ignored(tmp_path):
    index = np.where(INDEX == 2, 3, INDEX)
    annotations = read(save(tmp_path, in_colors(index)), mask_colors=COLORS, ignore_color=VOID)
    np.testing.assert_array_equal(annotations.mask(0), np.where(INDEX == 2, 255, INDEX))


def test_palette_images_have_colours_too(tmp_path):
    image = Image.fromarray(in_colors(INDEX)).convert("P", palette=Image.Palette.ADAPTIVE)
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/a.png")
    annotations = read(tmp_path, mask_colors=COLORS)
    np.testing.assert_array_equal(annotations.mask(0), INDEX)


def test_an_unknown_colour_is_named_with_its_pixels(tmp_path):
    index = np.where(INDEX == 2, 3, INDEX)
    annotations = read(save(tmp_path, in_colors(index)), mask_colors=COLORS)
    with pytest.raises(DataError, match=r"a\.png: .* got 1 others in 3 pixels: \[255, 255, 255\]"):
        annotations.mask(0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"mask_colors": COLORS[:2]}, "data.mask_colors: expected a colour for each of the 3"),
        ({"mask_colors": (*COLORS[:2], COLORS[0])}, "expected different colours"),
        ({"mask_colors": (*COLORS[:2], (0, 0, 256))}, "expected numbers from 0 to 255"),
        ({"ignore_color": VOID}, "data.ignore_color: expected data.mask_colors beside it"),
        ({"mask_colors": COLORS, "mask_channel": 0}, "data.mask_channel: expected none"),
        ({"mask_colors": COLORS, "ignore_color": COLORS[1]}, "expected different colours"),
        ({"mask_name": "mask.png"}, "data.mask_name: expected a file name with {stem}"),
        ({"image_name": "x/{stem}"}, "data.image_name: expected a file name with {stem}"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(tmp_path, data, expected):
    save(tmp_path, INDEX)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **data)
    assert expected in str(caught.value)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("LA", 2)])
def test_one_channel_is_chosen_by_its_number(tmp_path, mode, channels):
    pixels = np.full((*INDEX.shape, channels), 9, np.uint8)
    pixels[0, 0] = 7  # neither equal colours nor one transparency
    pixels[:, :, 0] = INDEX
    pixels[:, :, 1] = INDEX[::-1]
    save(tmp_path, pixels, mode)
    np.testing.assert_array_equal(read(tmp_path, mask_channel=1).mask(0), INDEX[::-1])
    with pytest.raises(DataError, match=rf"data\.mask_channel from 0 to {channels - 1}"):
        read(tmp_path, mask_channel=channels).mask(0)
    with pytest.raises(DataError, match=r"set data\.mask_colors"):
        read(tmp_path).mask(0)


def test_equal_colour_channels_are_an_index(tmp_path):
    save(tmp_path, np.stack([INDEX] * 3, axis=2))
    np.testing.assert_array_equal(read(tmp_path).mask(0), INDEX)


def test_a_missing_mask_is_one_line(tmp_path):
    with pytest.raises(DataError, match="expected a mask, found none"):
        MaskReading().read(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("image", "mask", "data"),
    [
        ("a.jpg", "masks/a_mask.png", {"mask_name": "{stem}_mask.png"}),
        ("a.jpg", "masks/a_mask.png", {"mask_name": "{stem}_mask"}),
        ("a.jpg", "masks/mask-a.PNG", {"mask_name": "mask-{stem}.png"}),
        ("x/a.jpg", "masks/x/a_mask.png", {"mask_name": "{stem}_mask.png"}),
        (
            "ulm/a_leftImg8bit.png",
            "masks/ulm/a_gtFine_labelIds.png",
            {"mask_name": "{stem}_gtFine_labelIds.png", "image_name": "{stem}_leftImg8bit.png"},
        ),
        ("a.jpg", "images/a_mask.png", {"mask_name": "{stem}_mask.png"}),
        ("a.jpg", "images/a.png", {"mask_name": "{stem}.png"}),
        ("x/a.png", "images/x/a_mask.png", {"mask_name": "{stem}_mask"}),
    ],
)
def test_images_and_masks_are_related_by_patterns(tmp_path, image, mask, data):
    write_noise(tmp_path / "images" / image, 3, 4)
    save(tmp_path, INDEX, name=mask)
    save(tmp_path, INDEX, name="masks/a_gtFine_instanceIds.png")  # of another kind
    annotations = read(tmp_path, {"masks": mask.split("/")[0]}, **data)
    assert len(annotations) == 1
    assert str(annotations.path(0)) == str(tmp_path / "images" / image)
    np.testing.assert_array_equal(annotations.mask(0), INDEX)


@pytest.mark.parametrize("name", ["a_mask", "a-label", "seg_a"])
def test_a_missing_mask_shows_the_pattern_of_a_near_one(tmp_path, name):
    save(tmp_path, INDEX, name=f"masks/{name}.png")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    pattern = name.replace("a", "{stem}", 1) if name != "seg_a" else "seg_{stem}"
    assert str(caught.value).endswith(f"set data.mask_name to '{pattern}.png'")
    assert len(read(tmp_path, mask_name=f"{pattern}.png")) == 1


def test_masks_beside_images_without_a_pattern_are_one_line(tmp_path):
    write_noise(tmp_path / "images/a.jpg", 3, 4)
    save(tmp_path, INDEX, name="images/a.png")
    with pytest.raises(DataError, match=r"for masks beside the images, set data\.mask_name"):
        read(tmp_path, {"masks": "images"})


def test_patterns_give_what_image_and_mask_share():
    names = NamePatterns("{stem}_image", "{stem}_mask.png")
    assert names.image_stem("x/a_image.jpg") == names.mask_stem("x/a_mask.PNG") == "x/a"
    assert names.mask_stem("x/a_mask.jpg") is None
