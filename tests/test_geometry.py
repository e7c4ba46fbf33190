import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from mbv2det.geometry import (
    Frame,
    box_area,
    pairwise_intersection,
    pairwise_iou,
)

sides = st.integers(1, 2000)
scales = st.floats(0.1, 10)
offsets = st.floats(-500, 500)


def random_boxes(count, limit=100.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * limit
    return torch.cat([corners.amin(1), corners.amax(1)], dim=1)


@settings(max_examples=30, deadline=None)
@given(sides, sides, scales, scales, offsets, offsets, st.integers(0, 10**6))
def test_frame_maps_back_to_the_original_box(height, width, sy, sx, oy, ox, seed):
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (5, 2, 2)), axis=1)
    boxes = corners.reshape(5, 4) * [width, height, width, height]
    frame = Frame((height, width), (sy, sx), (oy, ox))
    back = frame.boxes_to_original(torch.from_numpy(frame.boxes_to_working(boxes)))
    # float64: 500 px of offset over a scale of 0.1 costs four of its sixteen digits.
    np.testing.assert_allclose(back.numpy(), boxes, atol=1e-9)


def test_frame_scales_and_shifts_each_axis_by_its_own_pair():
    frame = Frame((100, 200), scale=(2.0, 3.0), offset=(5.0, 7.0))
    # x: 10 * 3 + 7 = 37, 30 * 3 + 7 = 97; y: 20 * 2 + 5 = 45, 40 * 2 + 5 = 85
    working = frame.boxes_to_working(np.array([[10.0, 20.0, 30.0, 40.0]]))
    np.testing.assert_array_equal(working, [[37.0, 45.0, 97.0, 85.0]])


def test_boxes_to_working_keeps_the_dtype():
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    assert Frame((9, 9), (0.5, 0.5)).boxes_to_working(boxes).dtype == np.float32


def test_boxes_to_original_clips_to_the_image():
    boxes = torch.tensor(
        [[-5.0, -6.0, 30.0, 30.0], [-1.0, 2.0, 25.0, 12.0], [30.0, 40.0, 50.0, 60.0]]
    )
    expected = [[0.0, 0.0, 20.0, 10.0], [0.0, 2.0, 20.0, 10.0], [20.0, 10.0, 20.0, 10.0]]
    assert Frame((10, 20)).boxes_to_original(boxes).tolist() == expected


def test_pixel_centres_are_indices_of_the_working_image():
    rows, columns = Frame((2, 3), scale=(2.0, 4.0), offset=(1.0, -1.0)).pixel_centres()
    # Rows: 0.5 * 2 + 1 - 0.5, and 2 further; columns: 0.5 * 4 - 1 - 0.5, and 4 further.
    assert rows.tolist() == [1.5, 3.5]
    assert columns.tolist() == [0.5, 4.5, 8.5]


def test_pixel_centres_of_an_unscaled_image_are_its_own_indices():
    rows, columns = Frame((500, 375)).pixel_centres()
    assert rows.tolist() == list(range(500))
    assert columns.tolist() == list(range(375))


def test_pixel_centres_lie_in_the_middle_of_the_pixels_boxes():
    frame = Frame((40, 50), scale=(1.7, 0.6), offset=(-3.3, 12.0))
    rows, columns = frame.pixel_centres()
    x1, y1, x2, y2 = frame.boxes_to_working(np.array([[29.0, 31.0, 30.0, 32.0]]))[0]
    # Boxes are in continuous coordinates, where pixel 0 is centred on 0.5; float32 of up to 100.
    assert rows[31] + 0.5 == pytest.approx((y1 + y2) / 2, abs=1e-5)
    assert columns[29] + 0.5 == pytest.approx((x1 + x2) / 2, abs=1e-5)


def test_box_area_of_an_inverted_box_is_zero():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 0.0, 3.0], [2.0, 3.0, 0.0, 0.0]])
    assert box_area(boxes).tolist() == [6.0, 0.0, 0.0]


def test_intersection_of_two_boxes():
    first, second = torch.tensor([[0.0, 0.0, 4.0, 6.0]]), torch.tensor([[3.0, 2.0, 9.0, 9.0]])
    # (4 - 3) * (6 - 2)
    assert pairwise_intersection(first, second).item() == 4.0


def test_pairwise_iou_equals_torchvision():
    first, second = random_boxes(20, seed=1), random_boxes(30, seed=2)
    # The same quotient; only the order of the sum in the denominator may differ.
    torch.testing.assert_close(
        pairwise_iou(first, second), box_iou(first, second), rtol=1e-6, atol=1e-7
    )


def test_pairwise_iou_of_a_batch_is_that_of_each_list():
    batch = torch.stack([random_boxes(4, seed=3), random_boxes(4, seed=4)])
    second = random_boxes(7, seed=5)
    together = pairwise_iou(batch, second)
    assert together.shape == (2, 4, 7)
    for row, boxes in zip(together, batch, strict=True):
        torch.testing.assert_close(row, pairwise_iou(boxes, second), rtol=0, atol=0)


def test_pairwise_iou_of_empty_boxes_is_zero():
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert pairwise_iou(point, point).item() == 0.0


@pytest.mark.parametrize(("first", "second"), [(0, 3), (3, 0)])
def test_pairwise_iou_of_no_boxes_is_empty(first, second):
    assert pairwise_iou(random_boxes(first), random_boxes(second)).shape == (first, second)
