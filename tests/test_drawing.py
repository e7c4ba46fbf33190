import numpy as np
import pytest
import torch
from PIL import Image

from mbv2det.drawing import (
    DrawingSizes,
    add_caption,
    add_legend,
    class_colour,
    class_colours,
    draw_boxes,
    draw_detections,
    index_image,
    mask_legend,
    mask_palette,
    side_by_side,
    tint_labels,
    voc_colour,
)
from mbv2det.labels import LabelMap
from mbv2det.structures import IGNORE_INDEX, Detections

GREY = (128, 128, 128)
BOX_LABELS = LabelMap(("cat", "dog"), (7, 90))
MASK_LABELS = LabelMap(("background", "dog", "tree"), (0, 12, 30))


def grey(height, width):
    return Image.new("RGB", (width, height), GREY)


def rows_that_differ(picture, colour, columns=slice(None)):
    """Rows with a pixel of another colour."""
    return np.nonzero((np.asarray(picture)[:, columns] != colour).any(axis=(1, 2)))[0]


def test_voc_palette_equals_that_of_the_development_kit():
    # VOClabelcolormap: background, aeroplane, bicycle, ..., void.
    expected = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0),
        15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192),
    }  # fmt: skip
    assert {value: voc_colour(value) for value in expected} == expected


def test_classes_of_masks_have_the_palette_colours_of_their_ids():
    expected = {"background": voc_colour(0), "dog": voc_colour(12), "tree": voc_colour(30)}
    assert mask_palette(MASK_LABELS) == expected


def test_classes_of_boxes_have_different_colours():
    colours = class_colours(LabelMap.of_masks([str(i) for i in range(80)]))
    assert len(set(colours)) == 80


def test_class_has_the_same_colour_in_boxes_and_masks():
    colours = class_colours(BOX_LABELS, mask_palette(MASK_LABELS))
    assert colours == [class_colour(0), voc_colour(12)]


@pytest.mark.parametrize(("in_boxes", "in_masks"), [("couch", "sofa"), ("sofa", "couch")])
def test_class_has_the_same_colour_under_cocos_and_vocs_name(in_boxes, in_masks):
    palette = mask_palette(LabelMap((in_masks,), (18,)))
    assert class_colours(LabelMap((in_boxes,), (1,)), palette) == [voc_colour(18)]


def test_index_image_has_the_values_of_the_data_set():
    image = index_image(np.array([[0, 1, 2, IGNORE_INDEX]], np.uint8), MASK_LABELS)
    assert image.mode == "P"
    assert np.asarray(image).tolist() == [[0, 12, 30, 255]]
    assert [image.convert("RGB").getpixel((x, 0)) for x in (1, 3)] == [
        voc_colour(12),
        voc_colour(255),
    ]


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_sizes_are_proportional_to_the_shorter_side(factor):
    sizes = DrawingSizes.of(grey(480 * factor, 960 * factor))
    assert (sizes.line, sizes.outline, sizes.text) == (2 * factor, factor, 14 * factor)
    assert sizes == DrawingSizes.of(grey(960 * factor, 480 * factor))


def test_text_of_a_small_picture_stays_legible():
    assert DrawingSizes.of(grey(32, 32)).text == 12


def test_labels_are_tinted_and_the_background_is_not():
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 2
    picture = np.asarray(tint_labels(grey(40, 60), labels, MASK_LABELS)).astype(int)
    assert (picture[:, :28] == GREY).all()
    expected = 0.45 * np.array(GREY) + 0.55 * np.array(voc_colour(30))
    assert abs(picture[:, 32:] - expected).max() <= 1  # rounded to 8 bits
    assert (picture[:, 30] == 255).all()  # the outline


@pytest.mark.parametrize(("side", "width"), [(100, 1), (960, 2), (2400, 5)])
def test_outlines_have_the_width_for_the_picture(side, width):
    labels = np.zeros((side, side), np.uint8)
    labels[side // 2 :] = 1
    picture = np.asarray(tint_labels(grey(side, side), labels, MASK_LABELS))
    assert (picture == 255).all(axis=2)[:, side // 3].sum() == width
    turned = np.asarray(tint_labels(grey(side, side), labels.T.copy(), MASK_LABELS))
    assert (turned == 255).all(axis=2)[side // 3].sum() == width


def test_drawing_does_not_change_its_input():
    picture = grey(40, 60)
    draw_boxes(picture, [[5.0, 5.0, 30.0, 30.0]], ["cat"], [(255, 0, 0)])
    tint_labels(picture, np.ones((40, 60), np.uint8), MASK_LABELS)
    add_legend(picture, {"cat": (255, 0, 0)})
    add_caption(picture, ["cat"])
    assert (np.asarray(picture) == GREY).all()


def test_detections_below_the_score_are_not_drawn():
    detections = Detections(
        torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 5.0, 5.0]]),
        torch.tensor([0.9, 0.1]),
        torch.tensor([1, 0]),
    )
    picture = np.asarray(draw_detections(grey(100, 120), detections, BOX_LABELS, min_score=0.5))
    # The lower edge of the dog's box: x 10..50 at y 40; the cat's box has the score 0.1.
    assert tuple(picture[40, 30]) == class_colour(1)
    assert (picture[3, 5] == GREY).all()
    assert (picture[70:, 60:] == GREY).all()


def test_best_detection_is_on_top():
    box = [20.0, 30.0, 80.0, 70.0]
    detections = Detections(
        torch.tensor([box, box]), torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    )
    picture = draw_detections(grey(100, 120), detections, BOX_LABELS)
    assert picture.getpixel((50, 70)) == class_colour(0)


def test_scores_can_be_left_out():
    detections = Detections(
        torch.tensor([[20.0, 30.0, 80.0, 70.0]]), torch.ones(1), torch.tensor([0])
    )
    with_score, without = (
        draw_detections(grey(100, 120), detections, BOX_LABELS, show_scores=show)
        for show in (True, False)
    )
    above = (slice(0, 30), slice(20, None))
    widths = [
        (np.asarray(picture)[above] != GREY).any(axis=(0, 2)).sum()
        for picture in (with_score, without)
    ]
    assert 0 < widths[1] < widths[0]


@pytest.mark.parametrize("side", [120, 960, 2400])
def test_tags_and_lines_scale_with_the_picture(side):
    middle = side // 2
    box = [middle, middle, middle + side // 4, middle + side // 4]
    picture = draw_boxes(grey(side, side), [box], ["dog"], [(255, 0, 0)])
    sizes = DrawingSizes.of(picture)
    tag = rows_that_differ(picture, GREY, slice(middle, middle + 3))
    assert sizes.text <= middle - tag[0] <= 2 * sizes.text
    column = np.asarray(picture)[middle + side // 8 :, middle + side // 5]
    assert (column == (255, 0, 0)).all(axis=1).sum() == sizes.line


@pytest.mark.parametrize("box", [[90, 2, 99, 50], [60, 40, 99, 99], [0, 0, 100, 100]])
def test_tags_stay_within_the_picture(box):
    tags = ["dog 0.99", ""]
    picture = np.asarray(draw_boxes(grey(100, 100), [box], tags[:1], [(0, 0, 255)]))
    bare = np.asarray(draw_boxes(grey(100, 100), [box], tags[1:], [(0, 0, 255)]))
    rows, columns = np.nonzero((picture != bare).any(axis=2))
    inner = draw_boxes(grey(300, 300), [[100, 100, 200, 200]], tags[:1], [(0, 0, 255)])
    free = draw_boxes(grey(300, 300), [[100, 100, 200, 200]], tags[1:], [(0, 0, 255)])
    expected = np.nonzero((np.asarray(inner) != np.asarray(free)).any(axis=2))
    assert np.ptp(rows) >= np.ptp(expected[0]) - 3  # lines of the box's colour may hide its edge
    assert np.ptp(columns) >= np.ptp(expected[1]) - 3


def test_legend_names_the_classes_of_a_mask():
    labels = np.array([[0, 2, IGNORE_INDEX]], np.uint8)
    assert mask_legend(labels, MASK_LABELS) == {"tree": voc_colour(30)}


@pytest.mark.parametrize("side", [120, 2400])
def test_legend_scales_with_the_picture(side):
    picture = add_legend(grey(side, side), {"tree": (0, 0, 255)})
    assert picture.size == (side, side + DrawingSizes.of(grey(side, side)).row)
    assert (np.asarray(picture)[:side] == GREY).all()
    blue = (np.asarray(picture)[side:] == (0, 0, 255)).all(axis=2)
    assert np.ptp(np.nonzero(blue)[0]) == pytest.approx(
        DrawingSizes.of(grey(side, side)).text, abs=2
    )


def test_legend_breaks_lines_at_the_width_of_the_picture():
    colours = {f"class number {i}": (i, 0, 0) for i in range(10)}
    picture = add_legend(grey(240, 320), colours)
    assert picture.width == 320
    assert picture.height > 240 + 3 * DrawingSizes.of(grey(240, 320)).row
    assert (np.asarray(picture)[240:, -1] == 255).all()  # nothing is cut off


def test_empty_legend_and_caption_add_nothing():
    assert add_legend(grey(40, 60), {}).size == (60, 40)
    assert add_caption(grey(40, 60), []).size == (60, 40)


def test_caption_is_as_wide_as_its_longest_line():
    picture = add_caption(grey(60, 60), ["cat 0.9", "a rather long class name 0.05"])
    assert picture.width > 60
    assert picture.height == 60 + 2 * DrawingSizes.of(grey(60, 60)).row
    assert (np.asarray(picture)[:, -1] == 255).all()  # nothing is cut off


def test_pictures_side_by_side_keep_their_sizes():
    row = side_by_side([Image.new("RGB", (30, 20)), Image.new("RGB", (10, 40))], gap=4)
    assert row.size == (44, 40)
    assert side_by_side([grey(480, 480), grey(480, 480)]).size == (964, 480)
