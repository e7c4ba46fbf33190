"""Training passes written by hand: equal to PyTorch's own in values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mbv2det.backbones.layers import ReLU6, conv2d


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_equals_that_of_torch_in_values_and_gradients(dtype):
    values = torch.cat([torch.linspace(-8, 8, 33), torch.tensor([0.0, 6.0, torch.inf, -torch.inf])])
    results = []
    for activation in (ReLU6(inplace=True), nn.ReLU6()):
        values_in = values.to(dtype).requires_grad_()
        output = activation(values_in * 1)
        output.backward(torch.arange(len(values)).to(dtype))
        results.append((output.detach(), values_in.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_relu6_passes_nan_on():
    assert ReLU6()(torch.tensor([torch.nan], requires_grad=True)).isnan().all()


def test_relu6_keeps_its_output_and_nothing_else():
    kept = []
    values = torch.randn(5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        output = ReLU6(inplace=True)(values * 2)
    assert any(torch.equal(t, output) for t in kept)
    assert len(kept) == 1


def test_relu6_leaves_no_trace_in_an_exported_graph():
    exported = torch.export.export(ReLU6(inplace=True).eval(), (torch.randn(4),))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert targets == {"aten.hardtanh_.default"}


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("size", [(9, 12), (16, 16)])
def test_strided_depthwise_gradients_are_those_of_float32(size, padding):
    convolution = conv2d(16, 16, 3, stride=2, groups=16, padding=padding)
    images = torch.randn(3, 16, *size).to(torch.bfloat16)
    low = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = convolution(low)
    grad_output = torch.randn_like(output)
    output.backward(grad_output)
    low_weight, convolution.weight.grad = convolution.weight.grad, None
    high = images.float().requires_grad_()
    convolution(high).backward(grad_output.float())
    # The gradient of the input is rounded to bfloat16 once, that of the weight not at all; sums
    # over images are in another order than in one call.
    torch.testing.assert_close(low.grad, high.grad.to(torch.bfloat16), rtol=0, atol=0)
    torch.testing.assert_close(low_weight, convolution.weight.grad, rtol=1e-5, atol=1e-5)


def test_strided_depthwise_outputs_are_those_of_autocast():
    convolution = conv2d(16, 16, 3, stride=2, groups=16)
    images = torch.randn(2, 16, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.conv2d(images, convolution.weight, stride=2, padding=1, groups=16)
        assert torch.equal(convolution(images), expected)


def test_frozen_weights_of_a_strided_depthwise_convolution_get_no_gradient():
    convolution = conv2d(16, 16, 3, stride=2, groups=16).requires_grad_(False)
    images = torch.randn(2, 16, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        convolution(images).sum().backward()
    assert convolution.weight.grad is None
    assert images.grad is not None


def gradients(convolution, images, grad_output):
    """Returns the gradients of images and weights, all in the type of the images."""
    images = images.clone().requires_grad_()
    convolution.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=images.dtype == torch.bfloat16):
        convolution(images).backward(grad_output)
    return images.grad, convolution.weight.grad.clone()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("size", [(9, 12), (1, 1), (2, 5)])
def test_depthwise_gradients_are_those_of_float32(size, padding, kernel):
    convolution = conv2d(16, 16, kernel, groups=16, padding=padding)
    convolution.weight.data = convolution.weight.data.bfloat16().float()
    images = torch.randn(3, 16, *size).to(torch.bfloat16, memory_format=torch.channels_last)
    grad_output = torch.randn(3, 16, *size).to(torch.bfloat16)
    low = gradients(convolution, images, grad_output)
    high = gradients(convolution, images.float(), grad_output.float())
    # Sums are in float32, and rounded to bfloat16 once: half of a last digit, 2 ** -9.
    torch.testing.assert_close(low[0].float(), high[0], rtol=2**-8, atol=1e-5)
    torch.testing.assert_close(low[1], high[1], rtol=2**-8, atol=1e-4)


def test_depthwise_outputs_and_type_of_gradients_are_those_of_autocast():
    convolution = conv2d(16, 16, 3, groups=16)
    images = torch.randn(2, 16, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.conv2d(images, convolution.weight, padding=1, groups=16)
        output = convolution(images)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert images.grad.dtype == convolution.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("part", ["images", "weight"])
def test_depthwise_convolutions_leave_out_the_gradient_that_is_not_needed(part):
    convolution = conv2d(16, 16, 3, groups=16).requires_grad_(part == "weight")
    images = torch.randn(2, 16, 9, 9, requires_grad=part == "images")
    with torch.autocast("cpu", torch.bfloat16):
        convolution(images).sum().backward()
    assert (images.grad is None) == (part == "weight")
    assert (convolution.weight.grad is None) == (part == "images")


@pytest.mark.parametrize("settings", [{"stride": 2}, {"dilation": 2}])
def test_several_outputs_for_a_channel_have_float32_gradients_too(settings):
    convolution = conv2d(16, 32, 3, groups=16, **settings)
    convolution.weight.data = convolution.weight.data.bfloat16().float()
    images = torch.randn(3, 16, 9, 12).to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.no_grad():
        grad_output = torch.randn_like(convolution(images.float())).bfloat16()
    low = gradients(convolution, images, grad_output)
    high = gradients(convolution, images.float(), grad_output.float())
    torch.testing.assert_close(low[0], high[0].to(torch.bfloat16), rtol=0, atol=0)
    torch.testing.assert_close(low[1], high[1], rtol=1e-5, atol=1e-5)
