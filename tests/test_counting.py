import pytest
import torch
from torch import nn

from mbv2det.counting import count, count_parameters


def on_meta(channels, height, width, images=1):
    return torch.empty(images, channels, height, width, device="meta")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
    ).eval()


def test_counts_of_a_convolution_computed_by_hand(net):
    net.to("meta")
    counts = count(net, lambda: net(on_meta(3, 10, 7)))
    # 3 * 3 * 3 weights for each of 8 channels, used on 5 x 4 positions; 2 * 8 of batch norm.
    assert counts.parameters == 27 * 8 + 16
    assert counts.parameters_without_norms == 27 * 8
    assert counts.multiply_adds == counts.padded_multiply_adds == 27 * 8 * 20


def test_a_depthwise_convolution_multiplies_one_channel_by_one():
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=8, device="meta")
    counts = count(conv, lambda: conv(on_meta(8, 4, 5)))
    assert (counts.parameters, counts.multiply_adds) == (8 * 9 + 8, 8 * 9 * 20)  # biases are added


def test_a_linear_layer_uses_every_weight_once():
    linear = nn.Linear(5, 7, device="meta")
    counts = count(linear, lambda: linear(torch.empty(2, 5, device="meta")))
    assert (counts.parameters, counts.multiply_adds) == (42, 2 * 35)


def test_tensorflow_pads_each_axis_to_a_multiple_of_the_rate():
    conv = nn.Conv2d(1, 1, 3, padding=(18, 4), dilation=(18, 4), device="meta")
    counts = count(conv, lambda: conv(on_meta(1, 33, 9)))
    assert counts.multiply_adds == 9 * 33 * 9
    assert counts.padded_multiply_adds == 9 * 36 * 12


def test_every_image_of_every_call_counts(net):
    net.to("meta")
    one = count(net, lambda: net(on_meta(3, 8, 8))).multiply_adds
    both = count(net, lambda: [net(on_meta(3, 8, 8, images=2)), net(on_meta(3, 16, 8))])
    assert both.multiply_adds == 4 * one


def test_only_the_selected_part_is_counted(net):
    net.to("meta")
    counts = count(net[1], lambda: net(on_meta(3, 8, 8)))
    assert (counts.parameters, counts.multiply_adds) == (16, 0)


def test_counting_does_not_change_the_network(net):
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = net(x)
        count(net, lambda: net(x))
        assert torch.equal(net(x), before)
    assert not net[0]._forward_hooks


def test_failed_counting_does_not_change_the_network(net):
    with pytest.raises(RuntimeError):
        count(net, lambda: net(torch.zeros(1, 4, 8, 8)))
    assert not net[0]._forward_hooks
    assert "forward" not in vars(net[1])


def test_parameters_of_norms_can_be_left_out(net):
    assert count_parameters(net) == 27 * 8 + 16
    assert count_parameters(net, norms=False) == 27 * 8
