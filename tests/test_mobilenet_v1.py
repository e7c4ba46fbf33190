import re

import pytest
import torch
from networks import random_images, randomise
from torch import nn
from transformers import MobileNetV1Config, MobileNetV1Model

from mbv2det.backbones import Feature, FeatureSpec, MobileNetV1
from mbv2det.backbones.layers import Conv2dSame
from mbv2det.counting import count

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = [f"Conv2d_{k}" for k in range(14)]
FEATURES = [Feature(name) for name in LAYERS]
GAIN = 2**0.5  # makes up for the half that ReLU removes


def on_meta(**settings):
    with torch.device("meta"):
        return MobileNetV1(**settings)


def shapes(net, height, width):
    features = net(torch.empty(1, 3, height, width, device="meta"))
    return {feature: tuple(x.shape[1:]) for feature, x in features.items()}


def depthwise_settings(net):
    """Returns stride and dilation of each layer that has either."""
    convs = {name: net.layers[name].depthwise.conv for name in LAYERS[1:]}
    return {
        name: (conv.stride[0], conv.dilation[0])
        for name, conv in convs.items()
        if (conv.stride[0], conv.dilation[0]) != (1, 1)
    }


# Counts


def test_counts_with_the_imagenet_classifier():
    net = on_meta(num_classes=1000)
    counts = count(net, lambda: net.classify(torch.empty(1, 3, 224, 224, device="meta")))
    assert counts.parameters == 4_231_976
    # Slim's table leaves out the classifier, with one multiplication per weight: 1024 * 1000.
    assert counts.multiply_adds == 567_716_352 + 1_024_000


@pytest.mark.parametrize(
    ("width_mult", "size", "weights", "multiply_adds"),
    [(1.0, 224, 3_185_088, 567_716_352), (0.75, 128, 1_800_144, 106_002_432)],
)
def test_counts_of_slims_tables(width_mult, size, weights, multiply_adds):
    net = on_meta(width_mult=width_mult)
    counts = count(net, lambda: net(torch.empty(1, 3, size, size, device="meta")))
    assert (counts.parameters_without_norms, counts.multiply_adds) == (weights, multiply_adds)


# Channels and strides


@pytest.mark.parametrize(
    ("width_mult", "channels"),
    [
        (1.0, [32, 64, 128, 128, 256, 256, 512, 1024]),
        (0.35, [11, 22, 44, 44, 89, 89, 179, 358]),  # rounded down, no multiples of 8
        (0.1, [8, 8, 12, 12, 25, 25, 51, 102]),  # at least 8
    ],
)
def test_channels_are_rounded_down_to_integers(width_mult, channels):
    specs = on_meta(width_mult=width_mult).feature_specs
    features = [*FEATURES[:7], Feature("Conv2d_13")]
    assert [specs[feature].channels for feature in features] == channels


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_features_have_the_declared_shapes(output_stride, padding):
    net = on_meta(
        width_mult=0.25, output_stride=output_stride, padding=padding, out_features=FEATURES
    )
    shape_of = shapes(net, 64, 100)
    for feature, spec in net.feature_specs.items():
        expected = (spec.channels, 64 // spec.stride, -(-100 // spec.stride))
        assert shape_of[feature] == expected, feature
    assert net.feature_specs[Feature("Conv2d_13")] == FeatureSpec(256, output_stride)


def test_head_features_have_the_strides_that_heads_need():
    features = MobileNetV1.head_features
    levels = [features.stride_16, features.stride_32]
    specs = on_meta(output_stride=16, out_features=levels).feature_specs
    levels = [specs[feature] for feature in levels]
    assert levels == [FeatureSpec(512, 16), FeatureSpec(1024, 32)]
    assert specs[features.stride_4] == FeatureSpec(128, 4)
    assert specs[features.stride_8] == FeatureSpec(256, 8)
    assert specs[features.auxiliary] == FeatureSpec(512, 16)
    assert specs[features.dense] == FeatureSpec(1024, 16)


def test_output_stride_32_has_strides_only():
    strided = ("Conv2d_2", "Conv2d_4", "Conv2d_6", "Conv2d_12")
    assert depthwise_settings(on_meta()) == dict.fromkeys(strided, (2, 1))


def test_output_stride_16_dilates_after_layer_12():
    settings = depthwise_settings(on_meta(output_stride=16))
    strided = ("Conv2d_2", "Conv2d_4", "Conv2d_6")
    # Layer 12 loses its stride and keeps the current dilation.
    assert settings == {**dict.fromkeys(strided, (2, 1)), "Conv2d_13": (1, 2)}


def test_output_stride_8_dilates_after_layers_6_and_12():
    settings = depthwise_settings(on_meta(output_stride=8))
    dilated = {f"Conv2d_{k}": (1, 2) for k in range(7, 13)}
    strided = ("Conv2d_2", "Conv2d_4")
    assert settings == {**dict.fromkeys(strided, (2, 1)), **dilated, "Conv2d_13": (1, 4)}


def test_layers_after_the_last_feature_are_not_built():
    assert list(on_meta(out_features=[Feature("Conv2d_5")]).layers) == LAYERS[:6]


def test_settings_reach_every_layer():
    net = on_meta(padding="same", norm_eps=1e-3, norm_momentum=0.003)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.003)}
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {type(conv) for conv in convs} == {Conv2dSame}
    acts = [m for m in net.modules() if isinstance(m, nn.ReLU6)]
    assert len(norms) == len(acts) == 27


# An independent implementation


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("width_mult", [0.25, 0.5, 0.75, 1.0])
def test_every_layer_equals_transformers(width_mult, padding):
    config = MobileNetV1Config(depth_multiplier=width_mult, tf_padding=padding == "same")
    reference = randomise(MobileNetV1Model(config), gain=GAIN)
    network = MobileNetV1(width_mult, out_features=FEATURES, padding=padding, norm_eps=1e-3).eval()
    # Both list the same tensors in the same order.
    weights = zip(network.state_dict(), reference.state_dict().values(), strict=True)
    network.load_state_dict(dict(weights))
    x = random_images(75, 96, count=2)
    with torch.no_grad():
        features = network(x)
        hidden = reference(x, output_hidden_states=True).hidden_states
    for feature, expected in zip(FEATURES[1:], hidden[1::2], strict=True):  # after every 1x1
        assert expected.std() > 0.2, feature  # the signal has not died out
        # The same float32 operations in the same order, on values of up to 6.
        torch.testing.assert_close(features[feature], expected, rtol=1e-5, atol=1e-4)


# Training, errors


def test_every_parameter_gets_a_finite_gradient():
    torch.manual_seed(0)
    net = MobileNetV1(0.25, num_classes=5)
    net.classify(random_images(64, 64, count=2)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("output_stride", [4, 12, 64])
def test_unknown_output_stride_is_refused(output_stride):
    with pytest.raises(ValueError, match=f"expected 8, 16 or 32, got {output_stride}"):
        MobileNetV1(output_stride=output_stride)


@pytest.mark.parametrize(
    "feature",
    [Feature("Conv2d_14"), Feature("Conv2d_11", part="expansion"), Feature("layer_18")],
    ids=str,
)
def test_unknown_feature_is_refused(feature):
    message = r"out_features: expected features among Conv2d_0, .*Conv2d_13, got "
    with pytest.raises(ValueError, match=f"{message}{re.escape(str(feature))}$"):
        MobileNetV1(out_features=[feature])


def test_classifying_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="this MobileNetV1 was built without a classifier"):
        on_meta().classify(torch.empty(1, 3, 32, 32, device="meta"))
