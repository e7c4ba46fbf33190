import re
import subprocess
import sys

import pytest
import torch
from networks import random_images, randomise
from torch import nn
from torchvision.models import resnet50, resnet101

from mbv2det.backbones import Feature, FeatureSpec
from mbv2det.backbones.grid import grid_centres
from mbv2det.backbones.resnet import ResNet50, ResNet101
from mbv2det.counting import count_parameters

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = ["stem", "layer1", "layer2", "layer3", "layer4"]
FEATURES = [Feature(name) for name in LAYERS]
STEM = ("conv1", "bn1", "relu", "maxpool")
DILATED = {32: [False, False, False], 16: [False, False, True], 8: [False, True, True]}


def on_meta(kind=ResNet50, **settings):
    with torch.device("meta"):
        return kind(**settings)


def our_name(reference_name):
    """Returns our name of a tensor of torchvision's network."""
    layer = reference_name.partition(".")[0]
    if layer == "fc":
        return reference_name.replace("fc", "classifier.linear")
    return f"layers.stem.{reference_name}" if layer in STEM else f"layers.{reference_name}"


# Counts


@pytest.mark.parametrize(("kind", "published"), [(ResNet50, 25_557_032), (ResNet101, 44_549_160)])
def test_parameters_with_the_imagenet_classifier(kind, published):
    assert count_parameters(on_meta(kind, num_classes=1000)) == published  # torchvision's figures


# torchvision


@pytest.fixture(scope="module", params=[32, 16, 8])
def both(request):
    """Returns torchvision's network, and ours with its weights."""
    torch.manual_seed(0)
    with torch.device("meta"):  # random numbers are drawn once, not twice
        theirs = resnet50(num_classes=7, replace_stride_with_dilation=DILATED[request.param])
        ours = ResNet50(request.param, num_classes=7, out_features=FEATURES)
    # Less than He's gain of 2 ** 0.5, since sixteen shortcuts add up.
    theirs = randomise(theirs.to_empty(device="cpu"), gain=1.2)
    nn.init.normal_(theirs.fc.weight, std=0.02)
    nn.init.normal_(theirs.fc.bias)
    weights = {our_name(name): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    return theirs, ours.eval()


def test_every_layer_equals_torchvision(both):
    theirs, ours = both
    x = expected = random_images(75, 96)
    with torch.no_grad():
        features = ours(x)
        for name in STEM:
            expected = getattr(theirs, name)(expected)
        for name in LAYERS:
            expected = expected if name == "stem" else getattr(theirs, name)(expected)
            assert 0.1 < expected.std() < 100, name  # the signal has neither died out nor grown
            # The same float32 operations in the same order.
            torch.testing.assert_close(features[Feature(name)], expected, rtol=1e-5, atol=1e-5)


def test_logits_equal_torchvision(both):
    theirs, ours = both
    x = random_images(75, 96)
    with torch.no_grad():
        logits, expected = ours.classify(x), theirs(x)
    assert expected.std() > 0.1
    # Sums of 2048 terms; the averages may add in another order.
    atol = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=atol)


def test_features_have_the_declared_shapes(both):
    _, ours = both
    with torch.no_grad():
        features = ours(random_images(64, 100))
    for feature, spec in ours.feature_specs.items():
        expected = (1, spec.channels, 64 // spec.stride, -(-100 // spec.stride))
        assert tuple(features[feature].shape) == expected, feature


def test_a_deeper_network_has_torchvisions_tensors():
    with torch.device("meta"):
        theirs = resnet101(num_classes=7)
    assert list(on_meta(ResNet101, num_classes=7).state_dict()) == [
        our_name(name) for name in theirs.state_dict()
    ]


# Strides and positions


def test_head_features_have_the_strides_that_heads_need():
    features = ResNet50.head_features
    levels = [features.stride_16, features.stride_32]
    specs = on_meta(output_stride=8, out_features=levels).feature_specs
    levels = [specs[feature] for feature in levels]
    assert levels == [FeatureSpec(1024, 16), FeatureSpec(2048, 32)]
    assert specs[features.stride_4] == FeatureSpec(256, 4)
    assert specs[features.stride_8] == FeatureSpec(512, 8)
    assert specs[features.auxiliary] == FeatureSpec(1024, 8)
    assert specs[features.dense] == FeatureSpec(2048, 8)


@pytest.mark.parametrize("size", [48, 49, 50, 51])
def test_cells_of_the_stem_lie_at_the_grid_centres(size):
    stem = ResNet50(out_features=[Feature("stem")]).layers["stem"].eval()
    nn.init.zeros_(stem.conv1.weight)
    nn.init.ones_(stem.conv1.weight[:, :, 3, 3])  # outputs the pixel that it is centred on
    _, columns = grid_centres((size, size), 4, "symmetric")
    for pixel in range(0, 44, 2):
        x = torch.zeros(1, 3, size, size)
        x[..., pixel] = 1
        with torch.no_grad():
            lit = stem(x)[0, 0, 0] > 0.5
        # One cell, or the two around the pixel: the pooling looks one position to either side.
        assert columns[lit].mean() == pixel
        assert len(columns) == len(lit)


def test_layers_after_the_last_feature_are_not_built():
    assert list(on_meta(out_features=[Feature("layer2")]).layers) == LAYERS[:3]


# Settings and errors


def test_norm_settings_reach_every_norm():
    net = on_meta(norm_eps=1e-3, norm_momentum=0.003)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.003)}


def test_blocks_start_as_the_identity():
    block = ResNet50(out_features=[Feature("layer1")]).layers["layer1"][1]
    x = torch.rand(2, 256, 8, 8)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("output_stride", [4, 12, 64])
def test_unknown_output_stride_is_refused(output_stride):
    with pytest.raises(ValueError, match=f"expected 8, 16 or 32, got {output_stride}"):
        ResNet50(output_stride=output_stride)


@pytest.mark.parametrize(
    "feature",
    [Feature("layer5"), Feature("layer4", part="expansion"), Feature("conv1")],
    ids=str,
)
def test_unknown_feature_is_refused(feature):
    message = "out_features: expected features among stem, layer1, layer2, layer3, layer4, got "
    with pytest.raises(ValueError, match=f"{message}{re.escape(str(feature))}$"):
        on_meta(out_features=[feature])


def test_the_other_backbones_load_without_torchvision():
    program = "import sys, mbv2det.backbones; print('torchvision' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
