"""Convolutions under bfloat16 autocast on a CPU: the gradients that oneDNN gets wrong."""

import pytest
import torch
import torch.nn.functional as F

from mbv2det.backbones.layers import conv2d


def gradients(convolution, images, output_gradient):
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = convolution(images)
    (output.float() * output_gradient).sum().backward()
    weight_gradient, convolution.weight.grad = convolution.weight.grad, None
    return output, weight_gradient


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (2, 2), (4, 5)])
@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_weights_that_only_meet_padding_have_no_gradient(size, depthwise, padding):
    groups = 32 if depthwise else 1
    convolution = conv2d(32, 32, 3, stride=2, groups=groups, padding=padding)
    convolution = convolution.to(memory_format=torch.channels_last)
    images = torch.randn(8, 32, *size).to(memory_format=torch.channels_last)
    with torch.no_grad():
        output_gradient = torch.randn_like(convolution(images))
    weight = convolution.weight.detach().clone().requires_grad_()
    padded = images
    if padding == "same":
        (top, bottom), (left, right) = convolution.pads(*size)
        padded = F.pad(images, (left, right, top, bottom))
    reference = F.conv2d(padded, weight, None, 2, convolution.padding, 1, groups)  # in float32
    (reference * output_gradient).sum().backward()
    for _ in range(10):  # uninitialised memory differs from call to call
        junk = [torch.full((n,), torch.nan) for n in (288, 512, 1024, 9216) for _ in range(5)]
        del junk
        output, gradient = gradients(convolution, images, output_gradient)
        assert output.dtype == torch.bfloat16
        assert torch.isfinite(gradient).all()
        assert (gradient[weight.grad == 0] == 0).all()


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (3, 6), (5, 2)])
def test_weights_of_dilated_depthwise_convolutions_have_their_gradients(kernel, dilation):
    convolution = conv2d(64, 64, kernel, dilation=dilation, groups=64)
    convolution = convolution.to(memory_format=torch.channels_last)
    images = torch.randn(4, 64, 33, 33).to(memory_format=torch.channels_last)
    with torch.no_grad():
        output_gradient = torch.randn_like(convolution(images))
    rounded, weight = (v.detach().bfloat16().float() for v in (images, convolution.weight))
    weight.requires_grad_()
    padding = dilation * (kernel // 2)
    reference = F.conv2d(rounded, weight, None, 1, padding, dilation, 64)
    (reference * output_gradient.bfloat16().float()).sum().backward()
    for _ in range(5):
        junk = [torch.full((2**n,), torch.nan) for n in range(6, 22)]
        del junk
        _, gradient = gradients(convolution, images, output_gradient)
        # bfloat16 rounds the gradient of the output once more.
        torch.testing.assert_close(gradient, weight.grad, rtol=0.02, atol=0.5)


def test_other_types_are_left_alone():
    convolution = conv2d(16, 16, 3, stride=2, groups=16)
    images = torch.randn(2, 16, 9, 9)
    with torch.no_grad():
        expected = F.conv2d(images, convolution.weight, stride=2, padding=1, groups=16)
        assert torch.equal(convolution(images), expected)
        half = convolution.to(torch.bfloat16)(images.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
