import pytest
import torch
import torch.nn.functional as F

from mbv2det.segmentation.resample import resample


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def evenly(count, first=0.0, step=1.0):
    return first + step * torch.arange(count, dtype=torch.float32)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_resample_equals_aligned_corners_where_the_corners_are_aligned(stride):
    values = random(2, 3, 6, 4)
    size = 5 * stride + 1, 3 * stride + 1
    resampled = resample(
        values,
        (evenly(6, step=stride), evenly(4, step=stride)),
        (evenly(size[0]), evenly(size[1])),
    )
    expected = F.interpolate(values, size, mode="bilinear", align_corners=True)
    # float32, values of order 1
    torch.testing.assert_close(resampled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [2, 5, 16])
def test_resample_equals_half_pixel_interpolation_of_cells_that_lie_there(stride):
    values = random(2, 3, 6, 4)
    # The first cell covers pixels 0 to stride - 1; the outer half of it is beyond its centre.
    first = (stride - 1) / 2
    resampled = resample(
        values,
        (evenly(6, first, stride), evenly(4, first, stride)),
        (evenly(6 * stride), evenly(4 * stride)),
    )
    expected = F.interpolate(values, scale_factor=stride, mode="bilinear", align_corners=False)
    # float32, values of order 1
    torch.testing.assert_close(resampled, expected, rtol=1e-5, atol=1e-6)


def test_a_ramp_stays_a_ramp_between_the_outermost_cells():
    source = evenly(5, first=15, step=32), evenly(3, first=31, step=32)
    target = evenly(20, first=2, step=9.5), evenly(30, step=4)
    ramp = (3 * source[0][:, None] - source[1]).view(1, 1, 5, 3)
    expected = 3 * target[0].clamp(15, 143)[:, None] - target[1].clamp(31, 95)
    # Positions in the hundreds, in float32; a half pixel is 0.5.
    torch.testing.assert_close(resample(ramp, source, target)[0, 0], expected, rtol=1e-5, atol=1e-4)


def test_resample_is_the_identity_on_its_own_grid():
    values, source = random(1, 2, 7, 5), (evenly(7, 1, 8), evenly(5, 3, 8))
    assert torch.equal(resample(values, source, source), values)


@pytest.mark.parametrize("columns", [1, 4])
def test_one_cell_is_spread_over_its_axis(columns):
    values = random(2, 3, 1, columns)
    one, cells, positions = evenly(1, 7), evenly(columns, 7, 16), evenly(16)
    assert torch.equal(
        resample(values, (one, cells), (positions, cells)), values.expand(-1, -1, 16, -1)
    )
    assert torch.equal(
        resample(values.mT, (cells, one), (cells, positions)), values.mT.expand(-1, -1, -1, 16)
    )


def test_gradients_are_those_of_the_interpolation():
    values = random(1, 2, 4, 3, dtype=torch.float64).requires_grad_()
    source, target = (evenly(4, 1, 4), evenly(3, 3, 8)), (evenly(9, step=2), evenly(7, step=3))
    # Linear: exact for a step as large as float32, in which it computes, can bear.
    assert torch.autograd.gradcheck(
        lambda v: resample(v, source, target), values, eps=1.0, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_lower_its_precision(dtype):
    values = random(1, 2, 5, 4).to(dtype)
    source, target = (evenly(5, step=16), evenly(4, step=16)), (evenly(65), evenly(49))
    expected = resample(values.float(), source, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        resampled = resample(values, source, target)
    assert resampled.dtype == torch.float32
    assert torch.equal(resampled, expected)
