"""MobileNetV2's bottleneck and shortcut settings: the ablation study of the paper's section 6.4."""

import hashlib
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from networks import random_images, randomise
from torch import nn

from mbv2det.backbones import Feature, MobileNetV2
from mbv2det.backbones.layers import ConvBNAct
from mbv2det.backbones.mobilenet_v2 import InvertedResidual

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = list(product(("linear", "relu6"), ("bottleneck", "expansion", "none")))
RESIDUAL = [f"layer_{k}" for k in (4, 6, 7, 9, 10, 11, 13, 14, 16, 17)]


def block(bottleneck="linear", shortcut="bottleneck", out_channels=8, stride=1):
    """Returns a block with the same random weights for all settings."""
    return randomise(
        InvertedResidual(
            8, out_channels, expand_ratio=6, stride=stride, dilation=1, conv=ConvBNAct,
            bottleneck=bottleneck, shortcut=shortcut,
        )
    )  # fmt: skip


def features(count=2):
    return torch.randn(count, 8, 7, 9, generator=torch.Generator().manual_seed(0))


def outputs(module, x):
    with torch.no_grad():
        return module(x)


def norm(layer, x):
    """Returns the values after batch norm in evaluation mode, by its formula."""
    n = layer.norm
    scale = n.weight / (n.running_var + n.eps).sqrt()
    return (x - n.running_mean[:, None, None]) * scale[:, None, None] + n.bias[:, None, None]


@torch.no_grad()
def by_hand(b, x, bottleneck, shortcut):
    wide = F.relu6(norm(b.expand, F.conv2d(x, b.expand.conv.weight)))
    filtered = F.conv2d(wide, b.depthwise.conv.weight, padding=1, groups=48)
    filtered = F.relu6(norm(b.depthwise, filtered))
    if shortcut == "expansion":
        filtered = wide + filtered
    thin = norm(b.project, F.conv2d(filtered, b.project.conv.weight))
    if bottleneck == "relu6":
        thin = F.relu6(thin)
    return x + thin if shortcut == "bottleneck" else thin


@pytest.mark.parametrize(("bottleneck", "shortcut"), SETTINGS)
def test_a_block_computes_its_formula(bottleneck, shortcut):
    output = outputs(block(bottleneck, shortcut), features())
    expected = by_hand(block(), features(), bottleneck, shortcut)
    # float32; only the norms' arithmetic is in another order.
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_all_settings_give_different_outputs():
    by_setting = [outputs(block(*settings), features()) for settings in SETTINGS]
    for i, one in enumerate(by_setting):
        assert not any(torch.allclose(one, other, atol=1e-2) for other in by_setting[:i])


@pytest.mark.parametrize("shape", [{"out_channels": 16}, {"stride": 2}])
def test_a_block_that_changes_the_shape_has_no_shortcut(shape):
    expected = outputs(block(shortcut="none", **shape), features())
    for shortcut in ("bottleneck", "expansion"):
        assert torch.equal(outputs(block(shortcut=shortcut, **shape), features()), expected)


def test_the_default_network_is_that_of_commit_6c4ab54():
    net = randomise(MobileNetV2(0.35))
    feature = outputs(net, random_images(64, 64))[Feature("layer_19")]
    # As computed by commit 6c4ab54, which had no such settings; tensors by name, in order.
    names = hashlib.sha256("\n".join(net.state_dict()).encode()).hexdigest()
    assert (len(net.state_dict()), names[:16]) == (312, "26513a1ab42e4ede")
    expected = [0.3716697, 0.1417729, 0.0, 0.3973272, 0.5989113, 0.3342526, 0.4903635, 0.3482954]
    # Seven digits as printed; float32 through 53 convolutions.
    assert feature[0, :2].flatten().tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert float(feature.mean()) == pytest.approx(0.2143120, rel=1e-4)


@pytest.mark.parametrize(("bottleneck", "shortcut"), SETTINGS)
def test_the_settings_change_no_parameter(bottleneck, shortcut):
    plain, switched = (
        {name: tensor.shape for name, tensor in net.state_dict().items()}
        for net in (MobileNetV2(0.35), MobileNetV2(0.35, bottleneck=bottleneck, shortcut=shortcut))
    )
    assert switched == plain


def bottleneck_values(bottleneck):
    """Outputs of all projections of a network."""
    net = randomise(MobileNetV2(0.35, bottleneck=bottleneck, shortcut="none"), gain=2**0.5)
    values = []
    for layer in net.modules():
        if isinstance(layer, InvertedResidual):
            layer.project.register_forward_hook(lambda _, __, y: values.append(y.clone()))
    outputs(net, random_images(64, 64))
    assert len(values) == 17
    return values


def test_relu6_keeps_every_bottleneck_between_0_and_6():
    assert all(y.min() >= 0 and y.max() <= 6 for y in bottleneck_values("relu6"))
    assert all(y.min() < 0 for y in bottleneck_values("linear"))


def test_relu6_clamps_the_linear_bottleneck():
    linear, relu6 = (outputs(block(b, "none"), features()) for b in ("linear", "relu6"))
    assert torch.equal(relu6, linear.clamp(0, 6))


def test_residual_blocks_of_the_paper_start_as_the_identity():
    net = MobileNetV2(0.35).train()
    for name in RESIDUAL:
        width = net.feature_specs[Feature(name)].channels
        x = torch.randn(2, width, 4, 4)
        assert torch.equal(outputs(net.layers[name], x), x), name


@pytest.mark.parametrize("bottleneck", ["linear", "relu6"])
def test_without_shortcuts_nothing_starts_at_zero(bottleneck):
    net = MobileNetV2(0.35, bottleneck=bottleneck, shortcut="none")
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((n.weight == 1).all() for n in norms)


@pytest.mark.parametrize(("bottleneck", "shortcut"), SETTINGS)
def test_every_parameter_learns_from_the_start(bottleneck, shortcut):
    torch.manual_seed(0)
    net = MobileNetV2(0.35, num_classes=5, bottleneck=bottleneck, shortcut=shortcut)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # a branch that starts at zero passes gradients on from the second step
        optimizer.zero_grad()
        logits = net.classify(random_images(64, 64, count=4))
        F.cross_entropy(logits, torch.arange(4)).backward()
        optimizer.step()
    stuck = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    assert stuck == []
