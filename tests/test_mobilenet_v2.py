import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from mbv2det.backbones import Feature, FeatureSpec, MobileNetV2
from mbv2det.backbones.layers import Conv2dSame, conv2d, make_divisible
from mbv2det.errors import ConfigError
from mbv2det.weights.readers import load_backbone_weights, read_backbone

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = [f"layer_{k}" for k in range(1, 20)]
FEATURES = [Feature(name) for name in LAYERS]
LAYER_18, LAYER_19 = FEATURES[17:]
EXPANSION = Feature("layer_15", part="expansion")  # which SSDLite reads


class RunsCode:
    """Unpickling this writes a file."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (str(self.witness), "w")


def on_meta(**settings):
    """Returns a network of shapes without values, which is enough to count."""
    with torch.device("meta"):
        return MobileNetV2(**settings)


def with_all_features(**settings):
    return MobileNetV2(**settings, out_features=tuple(on_meta().feature_specs))


def num_params(module):
    return sum(p.numel() for p in module.parameters())


def num_madds(function, size):
    """Returns multiply-adds of one image on the meta device: half of the FLOPs."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        function(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2


def randomise(module, seed=0):
    """Draws batch norms at random, such that activations reach both ends of ReLU6."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.weight.data.uniform_(1, 4, generator=generator)
            norm.bias.data.normal_(0, 0.2, generator=generator)
    return module


def torchvision_net(width_mult, seed=0):
    torch.manual_seed(seed)
    return randomise(mobilenet_v2(width_mult=width_mult, num_classes=7)).eval()


def saved(content, folder):
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def load(backbone, path):
    load_backbone_weights(backbone, read_backbone(path))


def images(height, width, count=1, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


# Counts


def test_parameters_with_the_imagenet_classifier():
    assert num_params(on_meta(num_classes=1000)) == 3_504_872


def test_parameters_at_width_1_4():
    assert num_params(on_meta(width_mult=1.4, num_classes=1000)) == 6_108_776


def test_parameters_up_to_layer_19():
    assert num_params(on_meta()) == 2_223_872


def test_parameters_up_to_layer_18():
    assert num_params(on_meta(out_features=[LAYER_18])) == 1_811_712


@pytest.mark.parametrize(("width_mult", "millions"), [(1.0, 300.77), (1.4, 582.2)])
def test_multiply_adds_at_224(width_mult, millions):
    net = on_meta(width_mult=width_mult, num_classes=1000)
    # The published numbers have one or two decimals.
    assert num_madds(net.classify, 224) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("size", "output_stride", "millions"),
    [(320, 32, 570.3), (513, 16, 2502.8), (513, 8, 7903.2)],
)
def test_multiply_adds_up_to_layer_18(size, output_stride, millions):
    net = on_meta(output_stride=output_stride, out_features=[LAYER_18])
    assert num_madds(net, size) / 1e6 == pytest.approx(millions, abs=0.05)  # one decimal


# Channels


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (32 * 0.35, 16),  # 11.2 -> 8 loses over a tenth -> 16
        (24 * 0.35, 8),  # 8.4 -> 8
        (32 * 1.4, 48),  # 44.8 -> 48
        (24 * 1.4, 32),  # 33.6 -> 32
        (1280 * 1.4, 1792),
        (12, 16),  # halfway goes up
        (11.9, 16),  # 8 is below 0.9 * 11.9
        (8.8, 8),
        (8.9, 16),  # 8 < 0.9 * 8.9 = 8.01
        (1, 8),
    ],
)
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected


def test_make_divisible_has_a_minimum():
    assert make_divisible(3, minimum=16) == 16


@pytest.mark.parametrize(
    ("settings", "channels"),
    [
        ({}, 1280),
        ({"width_mult": 0.5}, 1280),
        ({"width_mult": 1.4}, 1792),
        ({"width_mult": 0.5, "scale_last_layer": True}, 640),
        ({"width_mult": 1.4, "scale_last_layer": True}, 1792),
    ],
)
def test_channels_of_the_last_layer(settings, channels):
    net = on_meta(**settings)
    assert net.feature_specs[LAYER_19] == FeatureSpec(channels, 32)
    assert net.layers["layer_19"].conv.out_channels == net.out_channels == channels


def test_ssdlite_reads_576_channels_at_stride_16():
    assert on_meta().feature_specs[EXPANSION] == FeatureSpec(576, 16)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("width_mult", [0.35, 1.0])
def test_features_have_the_declared_shapes(output_stride, width_mult):
    net = with_all_features(width_mult=width_mult, output_stride=output_stride).eval()
    with torch.no_grad():
        features = net(images(64, 96))
    assert list(features) == list(net.feature_specs)
    for feature, spec in net.feature_specs.items():
        expected = (1, spec.channels, 64 // spec.stride, 96 // spec.stride)
        assert tuple(features[feature].shape) == expected, feature
    assert net.feature_specs[LAYER_18].stride == output_stride


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_grids_are_rounded_up_at_odd_sizes(padding):
    net = on_meta(padding=padding, out_features=[EXPANSION, LAYER_19])
    features = net(torch.empty(2, 3, 300, 225, device="meta"))
    # 300 -> 150, 75, 38, 19, 10; 225 -> 113, 57, 29, 15, 8
    assert features[EXPANSION].shape[2:] == (19, 15)
    assert features[LAYER_19].shape[2:] == (10, 8)


def test_features_come_in_the_order_of_the_request():
    requested = [LAYER_19, Feature("layer_5")]
    net = on_meta(out_features=requested)
    assert list(net(torch.empty(2, 3, 32, 32, device="meta"))) == requested


def test_returning_a_feature_does_not_change_later_layers():
    torch.manual_seed(0)
    complete, plain = with_all_features().eval(), MobileNetV2().eval()
    plain.load_state_dict(complete.state_dict())
    with torch.no_grad():
        features, expected = complete(images(64, 64)), plain(images(64, 64))
    assert torch.equal(features[LAYER_19], expected[LAYER_19])


def test_features_are_not_overwritten_by_later_layers():
    torch.manual_seed(0)
    net = with_all_features().eval()
    with torch.no_grad():
        together = net(images(32, 32))
        for feature, value in together.items():
            net.out_features = (feature,)
            assert torch.equal(net(images(32, 32))[feature], value), feature


# Output stride


def depthwise_settings(net):
    """Returns stride and dilation of the depthwise convolution of each block, by layer number."""
    return {
        int(name.removeprefix("layer_")): (
            layer.depthwise.conv.stride[0],
            layer.depthwise.conv.dilation[0],
        )
        for name, layer in net.layers.items()
        if hasattr(layer, "depthwise")
    }


def test_output_stride_16_dilates_after_layer_15():
    settings = depthwise_settings(on_meta(output_stride=16))
    # Layer 15 loses its stride and keeps the current dilation.
    expected = {8: (2, 1), **dict.fromkeys(range(9, 16), (1, 1))}
    expected |= dict.fromkeys(range(16, 19), (1, 2))
    assert {k: settings[k] for k in expected} == expected


def test_output_stride_8_dilates_after_layers_8_and_15():
    settings = depthwise_settings(on_meta(output_stride=8))
    expected = {8: (1, 1), **dict.fromkeys(range(9, 16), (1, 2))}
    expected |= dict.fromkeys(range(16, 19), (1, 4))
    assert {k: settings[k] for k in expected} == expected


def test_only_repeats_of_a_block_have_a_residual():
    net = on_meta(output_stride=8)
    layers = {
        int(n[6:])
        for n, layer in net.layers.items()
        if getattr(layer, "shortcut", "none") != "none"
    }
    # The first block of each row of the table has none (2, 3, 5, 8, 12, 15, 18): even without
    # stride it changes the number of channels.
    assert layers == {4, 6, 7, 9, 10, 11, 13, 14, 16, 17}


# TensorFlow's padding


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "pads"),
    [
        (224, 2, 1, (0, 1)),  # 112 outputs reach 111 * 2 + 3 = 225
        (225, 2, 1, (1, 1)),  # 113 outputs reach 227
        (224, 1, 1, (1, 1)),
        (33, 1, 2, (2, 2)),
        (10, 2, 2, (1, 2)),  # 5 outputs reach 4 * 2 + 5 = 13
        (7, 1, 4, (4, 4)),
    ],
)
def test_same_padding_equals_explicit_padding(size, stride, dilation, pads):
    torch.manual_seed(0)
    conv = Conv2dSame(2, 3, 3, stride=stride, dilation=dilation)
    x = torch.randn(1, 2, size, size)
    padded = F.pad(x, pads * 2)
    expected = F.conv2d(padded, conv.weight, conv.bias, stride=stride, dilation=dilation)
    with torch.no_grad():
        assert torch.equal(conv(x), expected)


def test_same_padding_pads_each_axis_by_its_own_size():
    conv = Conv2dSame(1, 1, 3, stride=2, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    expected = F.conv2d(F.pad(x, (1, 1, 0, 1)), conv.weight, stride=2)
    with torch.no_grad():
        assert torch.equal(conv(x), expected)


def test_same_padding_samples_one_pixel_further_than_symmetric():
    middle = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]).view(1, 1, 3, 3)
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    sampled = {}
    for padding in ("same", "symmetric"):
        conv = conv2d(1, 1, 3, stride=2, padding=padding)
        conv.weight.data = middle
        with torch.no_grad():
            sampled[padding] = conv(ramp)[0, 0, 0].tolist()
    # The middle of the kernel is at 0, 2, 4 after one pixel of padding and at 1, 3, 5 after none.
    assert sampled == {"same": [1.0, 3.0, 5.0], "symmetric": [0.0, 2.0, 4.0]}


def test_padding_reaches_every_convolution():
    net = on_meta(padding="same")
    kinds = {type(m) for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)}
    assert kinds == {Conv2dSame}


def test_norm_settings_reach_every_norm():
    net = on_meta(norm_eps=1e-3, norm_momentum=0.003)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.003)}


# torchvision's weights


@pytest.mark.parametrize("width_mult", [0.35, 0.5, 0.75, 1.0, 1.4])
def test_every_layer_equals_torchvision(width_mult, tmp_path):
    reference = torchvision_net(width_mult)
    network = MobileNetV2(width_mult, out_features=FEATURES).eval()
    load(network, saved(reference.state_dict(), tmp_path))
    x = expected = images(75, 96, count=2)
    with torch.no_grad():
        features = network(x)
        for feature, layer in zip(FEATURES, reference.features, strict=True):
            expected = layer(expected)
            assert expected.std() > 0.05, feature  # the signal has not died out
            # The same float32 operations in the same order, on values of order ten.
            torch.testing.assert_close(features[feature], expected, rtol=1e-5, atol=1e-5)
    assert features[Feature("layer_1")].max() == features[LAYER_19].max() == 6


@pytest.mark.parametrize("width_mult", [0.35, 1.0, 1.4])
def test_logits_equal_torchvision(width_mult, tmp_path):
    theirs = torchvision_net(width_mult)
    nn.init.normal_(theirs.classifier[1].weight)
    ours = MobileNetV2(width_mult, num_classes=7).eval()
    load(ours, saved(theirs.state_dict(), tmp_path))
    with torch.no_grad():
        expected = theirs(images(64, 64, count=2))
        logits = ours.classify(images(64, 64, count=2))
    # Sums of 1280 terms of order one, in float32; the pools may add in another order.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-4)


def test_a_backbone_that_ends_early_loads_its_own_tensors(tmp_path):
    theirs = torchvision_net(0.35)
    ours = MobileNetV2(0.35, out_features=[EXPANSION]).eval()
    load(ours, saved(theirs.state_dict(), tmp_path))
    with torch.no_grad():
        x = theirs.features[:14](images(64, 64))
        expected = theirs.features[14].conv[0](x)
        feature = ours(images(64, 64))[EXPANSION]
    torch.testing.assert_close(feature, expected, rtol=1e-5, atol=1e-5)  # float32


def test_every_tensor_is_loaded(tmp_path):
    theirs = torchvision_net(0.35).features.state_dict()
    filled = {f"features.{k}": torch.full_like(v, 3) for k, v in theirs.items()}
    ours = MobileNetV2(0.35)
    load(ours, saved(filled, tmp_path))
    assert all((tensor == 3).all() for tensor in ours.state_dict().values())


def test_loading_another_width_is_refused(tmp_path):
    path = saved(torchvision_net(0.5).state_dict(), tmp_path)
    with pytest.raises(
        ConfigError, match=r"got \d+ wrong shape; first: features\.0\.0\.weight \(expected"
    ):
        load(MobileNetV2(0.75), path)


def test_loading_another_network_is_refused(tmp_path):
    path = saved({"conv1.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(ConfigError, match=r"expected MobileNetV2, got no tensor.*conv1\.weight"):
        load(MobileNetV2(0.35), path)


def test_loading_an_empty_state_dict_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="first name: 'none'"):
        load(MobileNetV2(0.35), saved({}, tmp_path))


def test_loading_a_bare_tensor_is_refused(tmp_path):
    path = saved(torch.zeros(3), tmp_path)
    with pytest.raises(ConfigError, match="expected a state dict, got another object"):
        load(MobileNetV2(0.35), path)


def test_loading_a_file_of_other_objects_is_refused(tmp_path):
    path = tmp_path / "notes.pth"
    path.write_text("not weights at all")
    with pytest.raises(ConfigError, match=r"notes\.pth: expected a file of tensors"):
        load(MobileNetV2(0.35), path)


def test_loading_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.pth: expected a file"):
        load(MobileNetV2(0.35), tmp_path / "none.pth")


def test_loading_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path):
    witness = tmp_path / "witness"
    path = saved({"features.0.0.weight": RunsCode(witness)}, tmp_path)
    with pytest.raises(ConfigError, match="expected a file of tensors"):
        load(MobileNetV2(0.35), path)
    assert not witness.exists()


# Training, errors, surroundings


def test_residual_blocks_start_as_the_identity():
    block = MobileNetV2().layers["layer_4"]
    assert block.shortcut == "bottleneck"
    x = torch.rand(2, 24, 8, 8)
    assert torch.equal(block(x), x)


def test_every_parameter_gets_a_finite_gradient():
    torch.manual_seed(0)
    net = MobileNetV2(0.35, num_classes=5)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # residual blocks start as the identity
    net.classify(images(64, 64, count=2)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("output_stride", [4, 12, 64])
def test_unknown_output_stride_is_refused(output_stride):
    with pytest.raises(ValueError, match=f"expected 8, 16 or 32, got {output_stride}"):
        MobileNetV2(output_stride=output_stride)


@pytest.mark.parametrize(
    "feature",
    [Feature("layer_20"), Feature("layer_1", part="expansion"), Feature("features.3")],
    ids=str,
)
def test_unknown_feature_is_refused(feature):
    message = r"out_features: expected features among layer_1, layer_2\.expansion, .*, got "
    with pytest.raises(ValueError, match=f"{message}{re.escape(str(feature))}$"):
        MobileNetV2(out_features=[feature])


def test_a_feature_as_a_string_is_refused():
    # In a process of its own, without the type checks of the tests.
    program = "from mbv2det import MobileNetV2; MobileNetV2(out_features=['layer_18'])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr.splitlines()[-1] == (
        "TypeError: out_features: expected objects of Feature, such as "
        "Feature(layer='layer_1', part=None, stride=None), got 'layer_18'"
    )


def test_classifying_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="built without a classifier"):
        on_meta().classify(torch.empty(1, 3, 32, 32, device="meta"))


@pytest.mark.parametrize("training", [True, False])
def test_torchvisions_faster_rcnn_runs_on_it(training):
    torch.manual_seed(0)
    detector = FasterRCNN(
        MobileNetV2(0.35),
        num_classes=3,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign([LAYER_19], output_size=3, sampling_ratio=2),
    ).train(training)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    pictures = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    if training:
        losses = detector(pictures, [target, target])
        total = sum(losses.values())
        assert total.isfinite()
        total.backward()
        assert detector.backbone.layers["layer_1"].conv.weight.grad.isfinite().all()
    else:
        assert set(detector(pictures)[0]) == {"boxes", "labels", "scores"}


def test_export_gives_the_same_features():
    torch.manual_seed(0)
    net = randomise(MobileNetV2(0.35, padding="same", out_features=[EXPANSION])).eval()
    x = images(64, 75)
    exported = torch.export.export(net, (x,)).module()
    with torch.no_grad():
        features, expected = exported(x), net(x)
    assert list(features) == [EXPANSION]
    # The same float32 operations; only the graph was rewritten.
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_importing_the_package_loads_none_of_the_heavy_libraries():
    heavy = ["lightning", "albumentations", "cv2", "pycocotools", "torchvision"]
    program = f"import sys, mbv2det; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
