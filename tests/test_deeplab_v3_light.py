import pytest
import torch
import torch.nn.functional as F
from networks import random_images, randomise
from torch import nn

from mbv2det.backbones import Feature, FeatureSpec, MobileNetV2
from mbv2det.backbones.grid import cell_centres
from mbv2det.counting import count
from mbv2det.heads.deeplab_v3_light import DeepLabV3Light, DeepLabV3LightConfig, input_features
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD_FEATURES = MobileNetV2.head_features
INPUT_FEATURES = HIGH, LOW = Feature("layer_18"), Feature("layer_4")
SPECS = {HIGH: FeatureSpec(40, 16), LOW: FeatureSpec(12, 4)}
TODAYS_POOLED_HEAD = 2_740_689_792  # multiply-adds of DeepLabv3's mobile head at 513 pixels
TORCHVISIONS_HEAD = 5_113_877  # parameters, with the backbone


class Segmenter(nn.Module):
    """A backbone and DeepLabv3 with a light decoder."""

    def __init__(self, num_labels=5, *, width_mult=0.35, output_stride=16, padding="same"):
        super().__init__()
        self.backbone = MobileNetV2(
            width_mult, output_stride, out_features=INPUT_FEATURES, padding=padding
        )
        self.head = DeepLabV3Light(
            self.backbone.feature_specs, num_labels, head_features=HEAD_FEATURES, padding=padding
        )

    def forward(self, images):
        return self.head(self.backbone(images), tuple(images.shape[2:]))


def small_head(**settings):
    torch.manual_seed(0)
    return DeepLabV3Light(SPECS, 5, head_features=HEAD_FEATURES, channels=16, **settings)


def small_features(height, width, images=2):
    generator = torch.Generator().manual_seed(0)
    return {
        feature: torch.randn(
            images,
            spec.channels,
            -(-height // spec.stride),
            -(-width // spec.stride),
            generator=generator,
        )
        for feature, spec in SPECS.items()
    }


def test_the_head_reads_its_input_features():
    assert input_features(HEAD_FEATURES) == INPUT_FEATURES


def test_parameters_layer_by_layer():
    with torch.device("meta"):
        specs = {HIGH: FeatureSpec(320, 16), LOW: FeatureSpec(24, 4)}
        head = DeepLabV3Light(specs, 21, head_features=HEAD_FEATURES)
    pooling = pointwise = 320 * 256 + 2 * 256
    atrous = 320 * 9 + 2 * 320 + 320 * 256 + 2 * 256
    project = 5 * 256 * 256 + 2 * 256
    squeeze, reduce = 256 * 32 + 2 * 32, 24 * 24 + 2 * 24
    refine = 56 * 9 + 2 * 56 + 56 * 32 + 2 * 32
    classifiers = (256 + 1) * 21 + (32 + 1) * 21
    expected = pooling + pointwise + 3 * atrous + project + squeeze + reduce + refine + classifiers
    assert sum(p.numel() for p in head.parameters()) == expected


def test_size_and_cost_of_the_network():
    with torch.device("meta"):
        model = Segmenter(21, width_mult=1.0).eval()
        image = torch.empty(1, 3, 513, 513)
    counts = count(model, lambda: model(image))
    assert counts.parameters == 2_580_066 < TORCHVISIONS_HEAD
    assert counts.multiply_adds == 3_299_753_560
    assert counts.multiply_adds < 1.3 * TODAYS_POOLED_HEAD


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_logits_are_on_the_cells_of_stride_4(output_stride, padding):
    model = Segmenter(output_stride=output_stride, padding=padding).eval()
    with torch.no_grad():
        outputs = model(random_images(97, 130))
    assert torch.equal(outputs.rows, cell_centres(97, 4, padding))
    assert torch.equal(outputs.columns, cell_centres(130, 4, padding))
    assert outputs.logits.shape == (1, 5, 25, 33)
    assert outputs.auxiliary is None


def test_atrous_rates_follow_the_output_stride():
    for output_stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
        head = Segmenter(output_stride=output_stride).head
        assert [branch[0].conv.dilation[0] for branch in head.aspp.atrous] == rates
        assert {branch[0].conv.groups for branch in head.aspp.atrous} == {112}


def grids():
    return ((cell_centres(96, s, "same"), cell_centres(160, s, "same")) for s in (16, 4))


def test_the_decoder_joins_both_features_at_the_positions_of_the_fine_cells():
    head = randomise(small_head(padding="same"), gain=2**0.5)
    features = small_features(96, 160)
    coarse, fine = grids()
    inputs = []
    head.refine.register_forward_pre_hook(lambda _m, args: inputs.extend(args))
    with torch.no_grad():
        head(features, (96, 160))
        deep, low = inputs[0].split([32, 24], dim=1)
        assert torch.equal(deep, resample(head.squeeze(head.aspp(features[HIGH])), coarse, fine))
        assert torch.equal(low, head.reduce(features[LOW]))


def test_the_decoder_is_added_to_the_logits_of_aspp():
    head = randomise(small_head(padding="same"), gain=2**0.5)
    features = small_features(96, 160)
    coarse, fine = grids()
    corrections = []
    head.fine_classifier.register_forward_hook(lambda _m, _a, output: corrections.append(output))
    with torch.no_grad():
        logits = head(features, (96, 160)).logits
        of_aspp = resample(head.coarse_classifier(head.aspp(features[HIGH])), coarse, fine)
    assert torch.equal(logits, of_aspp + corrections[0])
    assert corrections[0].std() > 0.1


@pytest.mark.parametrize("images", [1, 2])
def test_every_parameter_gets_a_finite_gradient(images):
    torch.manual_seed(0)
    model = Segmenter()
    for norm in model.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # residual blocks start as the identity
    logits = model(random_images(97, 129, images)).logits
    F.cross_entropy(logits, logits.detach().argmin(1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_settings_reach_every_layer():
    head = small_head(norm_eps=0.5, norm_momentum=0.25, dropout=0.3)
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}
    assert head.dropout.p == 0.3
    assert not [m for m in head.modules() if isinstance(m, nn.ReLU6)]


def test_all_labels_start_about_equally_likely():
    head = small_head().eval()
    # 16 and 32 features of order one times weights of 0.01.
    assert head(small_features(96, 160), (96, 160)).logits.abs().max() < 0.5
    for classifier in head.class_layers():
        assert classifier.weight.abs().max() <= 0.02
        assert (classifier.bias == 0).all()


def test_the_loss_has_the_configured_terms():
    assert DeepLabV3LightConfig().build_loss().terms == ("pixels",)
    assert DeepLabV3LightConfig(lovasz_weight=1.0).build_loss().terms == ("pixels", "lovasz")


def test_export_equals_the_eager_network():
    model = randomise(Segmenter(), gain=2**0.5)
    graph = torch.export.export(model, (random_images(64, 97),)).module()
    with torch.no_grad():
        expected, outputs = model(random_images(64, 97)), graph(random_images(64, 97))
    assert isinstance(outputs, SegmentationOutputs)
    # The same float32 operations; only the graph was rewritten.
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.rows, expected.rows)
    assert torch.equal(outputs.columns, expected.columns)


def test_bfloat16_weights_run():
    head = randomise(small_head(), gain=2**0.5).bfloat16()
    features = {feature: x.bfloat16() for feature, x in small_features(96, 160).items()}
    with torch.no_grad():
        assert head(features, (96, 160)).logits.isfinite().all()
