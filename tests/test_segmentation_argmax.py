"""The label of every pixel is that of interpolating all logits, ties included."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbv2det.geometry import Frame
from mbv2det.segmentation import argmax
from mbv2det.segmentation.argmax import interpolated_argmax
from mbv2det.segmentation.resample import bilinear_weights, neighbours, resample


def evenly(count, first=0.0, step=16.0):
    return first + step * torch.arange(count, dtype=torch.float32)


def argmax_of_all(logits, source, target):
    """Interpolates the logits of every label at every position, along rows and then columns."""
    vertical, horizontal = (
        bilinear_weights(*axis).numpy() for axis in zip(source, target, strict=True)
    )
    # All but two terms of each sum are 0, so that its order does not matter.
    across = (logits.numpy()[:, :, None] * horizontal).sum(axis=-1)
    values = (across[:, None] * vertical[:, :, None]).sum(axis=2)
    return torch.from_numpy(values.argmax(axis=0).astype(np.uint8))


def normal(shape, rng):
    return rng.normal(size=shape)


def ties(shape, rng):
    return rng.integers(-1, 2, shape)


def constant(shape, rng):
    return np.full(shape, 0.1)


def near_ties(shape, rng):
    """Equal labels but for the last place, which interpolation may round away."""
    line = rng.normal(size=shape[1:])
    return line + rng.integers(-1, 2, shape) * np.spacing(np.float32(line))


def regions(shape, rng):
    """Large areas of one label, as a trained network predicts."""
    labels = rng.integers(0, shape[0], 3)[np.sort(rng.integers(0, 3, shape[1:]), axis=1)]
    return 8.0 * (labels == np.arange(shape[0])[:, None, None]) + rng.normal(size=shape)


def large(shape, rng):
    return rng.normal(size=shape) * 1e30


def frames(size):
    """Frames of a network input of this size: stretched, fitted and padded, cropped."""
    height, width = size
    originals = st.tuples(st.integers(1, 70), st.integers(1, 70))
    stretched = originals.map(lambda o: Frame(o, (height / o[0], width / o[1])))
    fitted = originals.map(lambda o: Frame(o, (min(height / o[0], width / o[1]),) * 2))
    offsets = st.tuples(st.floats(-60, 30), st.floats(-60, 30))
    scales = st.tuples(st.floats(0.2, 3), st.floats(0.2, 3))
    cropped = st.builds(Frame, originals, scales, offsets)
    return stretched | fitted | cropped


@given(st.data())
def test_labels_are_those_of_interpolating_all_logits(data):
    num_labels, height, width = (data.draw(st.integers(1, n)) for n in (21, 8, 8))
    stride, first = data.draw(st.sampled_from([1, 8, 16, 32])), data.draw(st.integers(0, 15))
    make = data.draw(st.sampled_from([normal, ties, constant, near_ties, regions, large]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    logits = torch.from_numpy(np.float32(make((num_labels, height, width), rng)))
    source = evenly(height, first, stride), evenly(width, first, stride)
    size = (height - 1) * stride + 1, (width - 1) * stride + 1
    target = data.draw(frames(size)).pixel_centres()
    labels = interpolated_argmax(logits, source, target)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, argmax_of_all(logits, source, target))


@pytest.mark.parametrize("make", [normal, regions, ties])
def test_labels_of_deeplabs_grid_are_those_of_resampling(make):
    # Strides of 16 pixels: interpolation of integers is exact, so that even ties agree.
    logits = torch.from_numpy(np.float32(make((21, 33, 33), np.random.default_rng(0))))
    source, target = (evenly(33), evenly(33)), (evenly(500, step=1), evenly(375, step=1))
    full = resample(logits[None], source, target)[0]
    labels = interpolated_argmax(logits, source, target)
    if make is ties:
        assert torch.equal(labels, full.max(dim=0).indices.to(torch.uint8))
    best, second = full.topk(2, dim=0).values
    clear = best - second > 1e-5  # logits of order 10, in float32
    assert torch.equal(labels[clear].long(), full.argmax(dim=0)[clear])


def test_parts_join_to_the_whole(monkeypatch):
    logits = torch.from_numpy(np.float32(normal((5, 7, 9), np.random.default_rng(0))))
    source, target = (evenly(7), evenly(9)), (evenly(97, step=1), evenly(129, step=1))
    whole = interpolated_argmax(logits, source, target)
    monkeypatch.setattr(argmax, "_MAX_POSITIONS", 700)  # two quads of 16 x 17 and a half
    assert torch.equal(interpolated_argmax(logits, source, target), whole)


def test_a_label_that_is_the_largest_at_no_cell_can_be_the_largest_between():
    # Labels 0 and 2 fall from 10 to 0 in opposite directions; label 1 is 6 everywhere.
    logits = torch.tensor([[[10.0, 0.0]], [[6.0, 6.0]], [[0.0, 10.0]]])
    source, target = (evenly(1), evenly(2, step=10)), (evenly(1), evenly(11, step=1))
    labels = interpolated_argmax(logits, source, target)
    # 10 - x, 6 and x: equal at 4 and at 6, where the first label counts.
    assert labels.tolist() == [[0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2]]


def test_equal_areas_are_filled_without_interpolating(monkeypatch):
    def fail(*_):
        raise AssertionError("interpolated")

    monkeypatch.setattr(argmax, "_fill", fail)
    logits = torch.zeros(3, 4, 5)
    logits[1] = 5.0
    source, target = (evenly(4), evenly(5)), (evenly(49, step=1), evenly(65, step=1))
    assert (interpolated_argmax(logits, source, target) == 1).all()


def test_logits_of_lower_precision_are_interpolated_in_float32():
    logits = torch.randn(4, 5, 5).bfloat16()
    source = evenly(5), evenly(5)
    target = evenly(65, step=1), evenly(65, step=1)
    assert torch.equal(
        interpolated_argmax(logits, source, target), argmax_of_all(logits.float(), source, target)
    )


@pytest.mark.parametrize("count", [1, 2, 6])
def test_neighbours_have_the_weights_of_the_interpolation(count):
    source, target = evenly(count, 5.0), evenly(70, -20.0, 2.3)
    both = neighbours(source, target)
    first, second = both.weights(torch.arange(70))
    dense = torch.zeros(70, count).scatter_add_(1, both.first[:, None], first[:, None])
    after = (both.first + 1).clamp(max=count - 1)
    dense.scatter_add_(1, after[:, None], second[:, None])
    assert torch.equal(dense, bilinear_weights(source, target))
