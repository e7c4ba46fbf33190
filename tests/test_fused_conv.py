"""Fused convolutions compute what the layers they replace compute."""

import pytest
import torch
from networks import random_images, randomise
from torch import nn

from mbv2det.backbones.layers import ConvBNAct, ReLU6
from mbv2det.build import build_model
from mbv2det.deploy.fused_conv import FusedConv, can_fuse, fused
from mbv2det.deploy.prepare import prepared
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec

pytestmark = pytest.mark.skipif(not can_fuse("cpu"), reason="this PyTorch is without oneDNN")


@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6, ReLU6])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 8), (1, 2, 8)])
@pytest.mark.parametrize("size", [(1, 1), (6, 9), (16, 16)])
def test_a_fused_convolution_gives_the_same(activation, padding, stride, dilation, groups, size):
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    block = ConvBNAct(8, 16, 3, activation=activation, **options)
    block.conv.bias = nn.Parameter(torch.randn(16))
    block.norm = nn.Identity()
    one = FusedConv(block.conv, activation)
    for count in (1, 3, 1):  # the first call chooses the layout of the weights for all
        images = 4 * torch.randn(count, 8, *size).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            torch.testing.assert_close(one(images), block(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_a_fused_network_gives_the_same_and_has_no_layer_left_to_fuse(dtype, padding):
    config = ModelConfig(
        BackboneConfig(width_mult=0.25, padding=padding), {"detection": SSDLiteConfig()}
    )
    spec = PreprocessSpec((64, 96))
    model = build_model(
        config, spec, {"detection": LabelMap.of_masks(("background", "cat", "dog"))}
    )
    ready = prepared(randomise(model), dtype)
    with torch.inference_mode():
        images = (random_images(64, 96, 2) * 60 + 120).clamp(0, 255).to(torch.uint8)
        expected = ready(images)["detection"].logits
        network = fused(prepared(model, dtype))
        got = network(images)["detection"].logits
    tolerance = 1e-4 if dtype == torch.float32 else 0.05 * expected.float().std().item()
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)
    fused_layers = {id(m.conv) for m in network.modules() if isinstance(m, FusedConv)}
    assert {id(m) for m in network.modules() if isinstance(m, nn.Conv2d)} == fused_layers


def test_no_other_device_fuses():
    assert not can_fuse("cuda")
    assert not can_fuse(torch.device("meta"))
