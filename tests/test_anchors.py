import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from mbv2det.detection.anchors import AnchorSpec, describe_coverage, make_anchors

GRIDS_320 = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
GRIDS_320x512 = ((20, 32), (10, 16), (5, 8), (3, 4), (2, 2), (1, 1))


def sides(boxes):
    return boxes[:, 2:] - boxes[:, :2]


def centres(boxes):
    return (boxes[:, 2:] + boxes[:, :2]) / 2


def levels_of(boxes, grids, spec=AnchorSpec()):
    counts = [h * w * n for (h, w), n in zip(grids, spec.per_cell(len(grids)), strict=True)]
    return boxes.split(counts)


def test_anchors_of_a_1x2_map_on_a_wide_image():
    # One row, two columns on 320 x 640: cells 320 x 320, centres (160, 160) and (480, 160).
    # Scales are of the shorter side, 320. One level: scale 0.2, that is 64 px; lowest level:
    #   0.1, ratio 1: 32 x 32; 0.2, ratio 2: 64 sqrt 2 x 64 / sqrt 2 = 90.510 x 45.255; and turned.
    boxes = make_anchors(AnchorSpec(), ((1, 2),), (320, 640))
    expected = torch.tensor(
        [
            [144.0, 144.0, 176.0, 176.0],
            [114.7452, 137.3726, 205.2548, 182.6274],
            [137.3726, 114.7452, 182.6274, 205.2548],
            [464.0, 144.0, 496.0, 176.0],
            [434.7452, 137.3726, 525.2548, 182.6274],
            [457.3726, 114.7452, 502.6274, 205.2548],
        ]
    )
    torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-4)  # four written decimals


def test_anchors_of_a_2x1_map_on_a_tall_image():
    # Two rows of 320 px: the second row's centre is (160, 480).
    boxes = make_anchors(AnchorSpec(), ((2, 1),), (640, 320))
    assert boxes[0].tolist() == [144.0, 144.0, 176.0, 176.0]
    assert boxes[3].tolist() == [144.0, 464.0, 176.0, 496.0]


def test_anchors_of_a_cell_vary_fastest_then_x_then_y():
    anchors = make_anchors(AnchorSpec(), ((2, 3),), (200, 300))
    expected = [[x, y] for y in (50.0, 150.0) for x in (50.0, 150.0, 250.0) for _ in range(3)]
    # float32 at 300
    torch.testing.assert_close(centres(anchors), torch.tensor(expected), rtol=0, atol=1e-4)


# Width x height at 320, scales 0.2, 0.35, ... 0.95 and then 1; w = s sqrt(ratio), h = s / sqrt.
SIZES_320 = [
    [(32, 32), (90.5, 45.3), (45.3, 90.5)],
    [(112, 112), (158.4, 79.2), (79.2, 158.4), (194, 64.7), (64.7, 194), (133.9, 133.9)],
    [(160, 160), (226.3, 113.1), (113.1, 226.3), (277.1, 92.4), (92.4, 277.1), (182.4, 182.4)],
    [(208, 208), (294.2, 147.1), (147.1, 294.2), (360.3, 120.1), (120.1, 360.3), (230.8, 230.8)],
    [(256, 256), (362, 181), (181, 362), (443.4, 147.8), (147.8, 443.4), (279, 279)],
    [(304, 304), (429.9, 215), (215, 429.9), (526.5, 175.5), (175.5, 526.5), (311.9, 311.9)],
]


@pytest.mark.parametrize("level", range(6))
def test_sizes_at_320(level):
    boxes = levels_of(make_anchors(AnchorSpec(), GRIDS_320, (320, 320)), GRIDS_320)[level]
    expected = torch.tensor(SIZES_320[level])
    # The table is rounded to 0.1 px.
    torch.testing.assert_close(sides(boxes)[: len(expected)], expected, rtol=0, atol=0.06)


def test_every_cell_has_the_same_sizes():
    for boxes, per_cell in zip(
        levels_of(make_anchors(AnchorSpec(), GRIDS_320x512, (320, 512)), GRIDS_320x512),
        AnchorSpec().per_cell(6),
        strict=True,
    ):
        cells = sides(boxes).view(-1, per_cell, 2)
        # Differences of float32 coordinates up to about 900.
        torch.testing.assert_close(cells, cells[:1].expand_as(cells), rtol=0, atol=2e-4)


@pytest.mark.parametrize("image_size", [(320, 512), (512, 320)])
def test_sizes_depend_on_the_shorter_side_only(image_size):
    grids = ((2, 2), (1, 1))
    expected = sides(make_anchors(AnchorSpec(), grids, (320, 320)))
    actual = sides(make_anchors(AnchorSpec(), grids, image_size))
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)  # float32 at 500


def test_centres_divide_the_image_by_the_grid_not_by_a_stride():
    # 3 cells on 320 px: 320 / 6 = 53.33, not 64 / 2.
    boxes = levels_of(make_anchors(AnchorSpec(), GRIDS_320, (320, 320)), GRIDS_320)[3]
    torch.testing.assert_close(centres(boxes)[0], torch.full((2,), 320 / 6), rtol=0, atol=1e-4)


def test_anchors_are_not_clipped_to_the_image():
    boxes = make_anchors(AnchorSpec(), GRIDS_320, (320, 320))
    assert boxes.min() < 0
    assert boxes.max() > 320


def test_number_of_anchors():
    grids_300 = ((19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
    # 3 * 20^2 + 6 * (10^2 + 5^2 + 3^2 + 2^2 + 1) = 1200 + 834; 3 * 19^2 + 834 = 1083 + 834
    assert make_anchors(AnchorSpec(), GRIDS_320, (320, 320)).shape == (2034, 4)
    assert make_anchors(AnchorSpec(), grids_300, (300, 300)).shape == (1917, 4)
    # 3 * 20 * 32 + 6 * (10 * 16 + 5 * 8 + 3 * 4 + 2 * 2 + 1) = 1920 + 6 * 217
    assert make_anchors(AnchorSpec(), GRIDS_320x512, (320, 512)).shape == (3222, 4)


def test_without_reduction_the_lowest_level_has_six_anchors_per_cell():
    assert AnchorSpec(reduce_lowest=False).per_cell(6) == [6] * 6


def test_upper_levels_equal_torchvision_on_a_square_image():
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95, clip=False)
    images = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
    expected = generator(images, [torch.zeros(1, 1, *grid) for grid in GRIDS_320])[0]
    spec = AnchorSpec(reduce_lowest=False)
    anchors = make_anchors(spec, GRIDS_320, (320, 320))
    # Theirs: s, the one between, 2, 1/2, 3, 1/3. Ours: s, 2, 1/2, 3, 1/3, the one between.
    expected = expected.view(-1, 6, 4)[:, [0, 2, 3, 4, 5, 1]].reshape(-1, 4)
    # They compute fractions of the image in float32: a few 1e-7 of 526 px.
    torch.testing.assert_close(anchors, expected, rtol=0, atol=1e-3)
    reduced = levels_of(make_anchors(AnchorSpec(), GRIDS_320, (320, 320)), GRIDS_320)
    torch.testing.assert_close(
        torch.cat(reduced[1:]),
        torch.cat(levels_of(expected, GRIDS_320, spec)[1:]),
        rtol=0,
        atol=1e-3,
    )


def test_anchors_made_in_inference_mode_can_be_trained_on():
    grids = ((1, 1),)
    with torch.inference_mode():
        make_anchors(AnchorSpec(), grids, (77, 77))
    weight = torch.ones(1, requires_grad=True)
    (make_anchors(AnchorSpec(), grids, (77, 77)) * weight).sum().backward()
    assert weight.grad is not None


def test_coverage_counts_objects_with_an_anchor_over_the_threshold():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 90.0, 90.0]])
    # IoU 1, 1 / 2 (just at the threshold), 1 / 4 and 0.
    boxes = [[0, 0, 10, 10], [50, 50, 90, 70], [0, 0, 5, 5], [20, 20, 30, 30]]
    line = describe_coverage(np.array(boxes, np.float32), anchors, 0.5)
    assert line == (
        "anchors: 2; 50.0% of 4 objects overlap an anchor by 0.5 or more, the others train "
        "only their best anchor"
    )


def test_coverage_computed_in_parts_equals_the_whole():
    anchors = make_anchors(AnchorSpec(), ((2, 2),), (64, 64))
    boxes = np.tile(np.array([[10, 10, 20, 30], [0, 0, 1, 1]], np.float32), (1500, 1))
    two = describe_coverage(boxes[:2], anchors, 0.2)
    assert describe_coverage(boxes, anchors, 0.2) == two.replace("of 2 objects", "of 3000 objects")


def test_coverage_without_objects_says_so():
    anchors = make_anchors(AnchorSpec(), ((1, 1),), (64, 64))
    line = describe_coverage(np.zeros((0, 4), np.float32), anchors, 0.5)
    assert line == "anchors: no objects to compare them with"
