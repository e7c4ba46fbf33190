import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder as TorchvisionBoxCoder

from mbv2det.detection.box_coder import BoxCoder

BOX = torch.tensor([[12.0, 24.0, 32.0, 64.0]])
ANCHOR = torch.tensor([[10.0, 20.0, 20.0, 60.0]])


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 300
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 200], dim=1)


def test_encode_of_a_hand_computed_box():
    # Centres: box (22, 44), anchor (15, 40); sides: box (20, 40), anchor (10, 40).
    # dx = 10 * (22 - 15) / 10, dy = 10 * (44 - 40) / 40, dw = 5 ln(20 / 10), dh = 5 ln(40 / 40)
    expected = torch.tensor([[7.0, 1.0, 5 * math.log(2), 0.0]])
    torch.testing.assert_close(BoxCoder().encode(BOX, ANCHOR), expected, rtol=1e-6, atol=1e-6)


def test_decode_of_a_hand_computed_box():
    deltas = torch.tensor([[7.0, 1.0, 5 * math.log(2), 0.0]])
    # float32 logarithm and exponential: a few units in the last place of 64.
    torch.testing.assert_close(BoxCoder().decode(deltas, ANCHOR), BOX, rtol=0, atol=2e-5)


def test_zero_deltas_decode_to_the_anchor():
    assert BoxCoder().decode(torch.zeros(1, 4), ANCHOR).tolist() == ANCHOR.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_encode_then_decode_is_identity(seed):
    boxes, anchors = random_boxes(20, seed), random_boxes(20, seed + 1)
    back = BoxCoder().decode(BoxCoder().encode(boxes, anchors), anchors)
    # float32 coordinates up to 500 resolve 3e-5, and some ten operations lie between.
    torch.testing.assert_close(back, boxes, rtol=0, atol=5e-4)


def test_encode_equals_torchvision():
    boxes, anchors = random_boxes(100, 0), random_boxes(100, 1)
    expected = TorchvisionBoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(boxes, anchors)
    # float32: 3e-5 of the difference of two centres near 400, over an anchor 4 px wide, times 10.
    torch.testing.assert_close(BoxCoder().encode(boxes, anchors), expected, rtol=1e-5, atol=2e-4)


def test_decode_equals_torchvision():
    deltas = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) * 4
    anchors = random_boxes(100, 1)
    theirs = TorchvisionBoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas, anchors)
    # float32 coordinates of some hundred pixels, a few units in the last place.
    torch.testing.assert_close(BoxCoder().decode(deltas, anchors), theirs, rtol=1e-6, atol=2e-4)


def test_decode_of_a_batch_shares_the_anchors():
    deltas = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    anchors = random_boxes(5, 0)
    together = BoxCoder().decode(deltas, anchors)
    for row, one in zip(together, deltas, strict=True):
        torch.testing.assert_close(row, BoxCoder().decode(one, anchors), rtol=0, atol=0)


def test_decode_of_huge_deltas_is_finite():
    assert BoxCoder().decode(torch.full((1, 4), 1e6), ANCHOR).isfinite().all()


def test_decoded_sides_are_limited_to_62_anchors():
    decoded = BoxCoder().decode(torch.tensor([[0.0, 0.0, 1e6, 1e6]]), ANCHOR)
    # 1000 / 16 = 62.5 sides of the 10 x 40 anchor; float32 at 2500 resolves 2e-4.
    torch.testing.assert_close(
        decoded[:, 2:] - decoded[:, :2], torch.tensor([[625.0, 2500.0]]), rtol=0, atol=1e-2
    )
