import pytest
import torch
import torch.nn.functional as F
from networks import random_images, randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation import deeplabv3
from torchvision.models.segmentation.fcn import FCNHead

from mbv2det.backbones import Feature, FeatureSpec, MobileNetV2
from mbv2det.backbones.grid import cell_centres
from mbv2det.backbones.layers import Conv2dSame
from mbv2det.heads.aspp import PooledBatchNorm2d, atrous_rates
from mbv2det.heads.deeplab_v3 import DeepLabV3, input_features
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD_FEATURES = MobileNetV2.head_features
HIGH, LOW, AUXILIARY = (Feature(layer) for layer in ("layer_18", "layer_4", "layer_14"))
VARIANTS = [
    {},
    {"aspp": "full"},
    {"aspp": "separable"},
    {"auxiliary": True},
    {"decoder": True},
    {"aspp": "separable", "decoder": True, "auxiliary": True},
]
SPECS = {
    HIGH: FeatureSpec(40, 16),
    AUXILIARY: FeatureSpec(24, 16),
    LOW: FeatureSpec(12, 4),
}


class Segmenter(nn.Module):
    """A backbone and a DeepLabv3 head."""

    def __init__(
        self, num_labels=5, *, width_mult=0.35, output_stride=16, padding="same", **settings
    ):
        super().__init__()
        decoder, auxiliary = (settings.get(key, False) for key in ("decoder", "auxiliary"))
        out_features = input_features(HEAD_FEATURES, decoder, auxiliary)
        self.backbone = MobileNetV2(
            width_mult, output_stride, out_features=out_features, padding=padding, norm_eps=1e-3
        )
        self.head = DeepLabV3(
            self.backbone.feature_specs,
            num_labels,
            head_features=self.backbone.head_features,
            padding=padding,
            **settings,
        )

    def forward(self, images):
        return self.head(self.backbone(images), tuple(images.shape[2:]))


def small_head(**settings):
    torch.manual_seed(0)
    return DeepLabV3(SPECS, 5, head_features=HEAD_FEATURES, channels=16, **settings)


def small_features(height, width, count=2):
    generator = torch.Generator().manual_seed(0)
    return {
        feature: torch.randn(
            count,
            spec.channels,
            -(-height // spec.stride),
            -(-width // spec.stride),
            generator=generator,
        )
        for feature, spec in SPECS.items()
    }


def copy_in_order(source, target):
    """Copies tensors by position: both list the same layers in the same order."""
    names = target.state_dict()
    target.load_state_dict(dict(zip(names, source.values(), strict=True)))


# Counts


def num_params(module):
    return sum(p.numel() for p in module.parameters())


def num_madds(model, size):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("aspp", "params", "output_stride", "billions"),
    [
        ("pool", 2_113_557, 16, 2.741),
        ("pool", 2_113_557, 8, 8.826),
        ("full", 4_523_541, 16, 5.364),
        ("separable", 2_568_021, 16, 3.232),
    ],
)
def test_parameters_and_multiply_adds(aspp, params, output_stride, billions):
    with torch.device("meta"):
        model = Segmenter(21, width_mult=1.0, output_stride=output_stride, aspp=aspp).eval()
    assert num_params(model) == params
    assert num_madds(model, 513) / 1e9 == pytest.approx(billions, abs=5e-4)  # three decimals


def test_parameters_of_the_decoder_and_the_auxiliary_head():
    def params(**settings):
        specs = {
            HIGH: FeatureSpec(320, 16),
            AUXILIARY: FeatureSpec(96, 16),
            LOW: FeatureSpec(24, 4),
        }
        with torch.device("meta"):
            return num_params(DeepLabV3(specs, 21, head_features=HEAD_FEATURES, **settings))

    # 24 -> 48; depthwise 304 and 304 -> 256; depthwise 256 and 256 -> 256; norms have two.
    expected = 24 * 48 + 304 * (9 + 256) + 256 * (9 + 256) + 2 * (48 + 304 + 256 + 256 + 256)
    assert params(decoder=True) - params() == expected
    # 3x3 from 96 to 24 and its norm; 24 -> 21 with bias.
    assert params(auxiliary=True) - params() == 9 * 96 * 24 + 2 * 24 + 24 * 21 + 21


# Grids and rates


@pytest.mark.parametrize(("output_stride", "cells"), [(16, 33), (8, 65), (32, 17)])
def test_grids_of_a_513_crop(output_stride, cells):
    with torch.device("meta"):
        outputs = Segmenter(output_stride=output_stride)(torch.empty(2, 3, 513, 513))
    assert outputs.logits.shape == (2, 5, cells, cells)


@pytest.mark.parametrize(
    ("stride", "rates"), [(32, (3, 6, 9)), (16, (6, 12, 18)), (8, (12, 24, 36))]
)
def test_atrous_rates_follow_the_stride(stride, rates):
    specs = {HIGH: FeatureSpec(8, stride)}
    head = DeepLabV3(specs, 2, head_features=HEAD_FEATURES, aspp="full", channels=4)
    assert tuple(branch.conv.dilation[0] for branch in head.aspp.atrous) == rates
    assert atrous_rates(stride) == rates


def test_separable_branches_are_dilated_in_their_depthwise_convolution():
    head = small_head(aspp="separable")
    assert [branch[0].conv.dilation for branch in head.aspp.atrous] == [(6, 6), (12, 12), (18, 18)]
    assert {branch[0].conv.groups for branch in head.aspp.atrous} == {40}


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(("decoder", "stride"), [(False, 16), (True, 4)])
def test_outputs_contain_the_positions_of_their_cells(decoder, stride, padding):
    model = Segmenter(decoder=decoder, padding=padding).eval()
    with torch.no_grad():
        outputs = model(random_images(97, 130))
    assert torch.equal(outputs.rows, cell_centres(97, stride, padding))
    assert torch.equal(outputs.columns, cell_centres(130, stride, padding))
    assert outputs.logits.shape == (1, 5, len(outputs.rows), len(outputs.columns))


@pytest.mark.parametrize(
    ("decoder", "auxiliary", "expected"),
    [
        (False, False, (HIGH,)),
        (True, False, (HIGH, LOW)),
        (False, True, (HIGH, AUXILIARY)),
        (True, True, (HIGH, LOW, AUXILIARY)),
    ],
)
def test_the_head_reads_its_input_features(decoder, auxiliary, expected):
    assert input_features(HEAD_FEATURES, decoder, auxiliary) == expected
    head = small_head(decoder=decoder, auxiliary=auxiliary)
    features = small_features(64, 96)
    outputs = head({feature: features[feature] for feature in expected}, (64, 96))
    assert (outputs.auxiliary is not None) == auxiliary


# Parity


@pytest.mark.parametrize("stride", [16, 8])
def test_full_aspp_equals_torchvisions(stride):
    specs = {HIGH: FeatureSpec(24, stride)}
    head = DeepLabV3(specs, 5, head_features=HEAD_FEATURES, aspp="full", channels=16)
    ours = randomise(head.aspp, gain=2**0.5)
    reference = deeplabv3.ASPP(24, atrous_rates(stride), 16).eval()
    # Theirs lists 1x1, atrous, pool; its projection reads the branches in that order too.
    branches = [ours.pointwise, *ours.atrous, ours.pool]
    source = [t for branch in branches for t in branch.state_dict().values()]
    projection = ours.project.state_dict()
    pool, *others = projection["conv.weight"].split(16, dim=1)
    projection["conv.weight"] = torch.cat([*others, pool], dim=1)
    copy_in_order(dict(enumerate([*source, *projection.values()])), reference)
    x = torch.randn(2, 24, 40, 37, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        joined, expected = ours(x), reference(x)
    assert expected.std() > 0.3  # the outputs are not constant
    # The same float32 products; the projection adds the branches in another order.
    torch.testing.assert_close(joined, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tf_padding", [True, False])
@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("size", [(97, 129), (96, 130)])
def test_logits_equal_those_of_hugging_faces_segmenter(size, output_stride, tf_padding):
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    config = MobileNetV2Config(
        depth_multiplier=0.35, output_stride=output_stride, tf_padding=tf_padding, num_labels=5
    )
    theirs = randomise(MobileNetV2ForSemanticSegmentation(config), gain=2**0.5)
    ours = Segmenter(
        output_stride=output_stride, padding="same" if tf_padding else "symmetric"
    ).eval()
    # Theirs has layer_19, without using it.
    used = {k: v for k, v in theirs.state_dict().items() if "mobilenet_v2.conv_1x1" not in k}
    copy_in_order(used, ours)
    with torch.no_grad():
        logits, expected = ours(random_images(*size)).logits, theirs(random_images(*size)).logits
    assert expected.std() > 0.3  # the outputs are not constant
    assert expected.std(dim=(2, 3)).min() > 0.1  # they vary from cell to cell
    # The same float32 products in the same order, over twenty layers.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_auxiliary_logits_equal_those_of_torchvisions_fcn_head():
    head = randomise(small_head(auxiliary=True), gain=2**0.5)
    theirs = FCNHead(24, 5).eval()
    copy_in_order(head.auxiliary.state_dict(), theirs)
    features = small_features(96, 160)
    with torch.no_grad():
        logits = head(features, (96, 160)).auxiliary
        expected = theirs(features[AUXILIARY])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)  # float32


# Parts


def test_image_pooling_averages_the_whole_grid():
    head = randomise(small_head(), gain=2**0.5)
    nn.init.zeros_(head.aspp.pointwise.norm.weight)  # so that only the pooled branch contributes
    x = small_features(96, 160)[HIGH]
    shuffled = x.flatten(2)[:, :, torch.randperm(60)].view_as(x)
    with torch.no_grad():
        joined, expected = head.aspp(shuffled), head.aspp(x)
    torch.testing.assert_close(joined, expected, rtol=1e-5, atol=1e-5)  # sums in another order
    assert torch.equal(joined, joined[:, :, :1, :1].expand_as(joined))


def test_the_decoder_reads_aspp_at_the_positions_of_the_finer_cells():
    head = randomise(small_head(decoder=True, padding="same"), gain=2**0.5)
    features = small_features(96, 160)
    inputs = []
    head.decoder.refine.register_forward_pre_hook(lambda _m, args: inputs.extend(args))
    with torch.no_grad():
        head(features, (96, 160))
        # Fine cells lie at 4 i + 3 and coarse ones at 16 i + 15: on every fourth fine cell, from
        # i = 3 on.
        deep, low = inputs[0].split([16, 48], dim=1)
        assert torch.equal(deep[:, :, 3::4, 3::4], head.aspp(features[HIGH]))
        assert torch.equal(low, head.decoder.reduce(features[LOW]))


@pytest.mark.parametrize(("output_stride", "decoder"), [(32, False), (8, True)])
def test_auxiliary_logits_are_resampled_to_the_grid_of_the_logits(output_stride, decoder):
    model = randomise(
        Segmenter(output_stride=output_stride, decoder=decoder, auxiliary=True), gain=2**0.5
    )
    with torch.no_grad():
        outputs = model(random_images(97, 130))
        own = model.head.auxiliary(model.backbone(random_images(97, 130))[AUXILIARY])
    stride = min(16, output_stride)
    at = cell_centres(97, stride, "same"), cell_centres(130, stride, "same")
    assert own.shape[2:] != outputs.logits.shape[2:]
    assert torch.equal(outputs.auxiliary, resample(own, at, (outputs.rows, outputs.columns)))


def test_settings_reach_every_layer():
    head = small_head(
        aspp="separable", decoder=True, auxiliary=True, padding="same", norm_eps=0.5,
        norm_momentum=0.25, dropout=0.3,
    )  # fmt: skip
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}
    wide = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {type(conv) for conv in wide} == {Conv2dSame}
    assert {m.p for m in head.modules() if isinstance(m, nn.Dropout)} == {0.3}
    assert not [m for m in head.modules() if isinstance(m, nn.ReLU6)]


# Initialisation


def test_all_labels_start_about_equally_likely():
    head = small_head(auxiliary=True).eval()
    outputs = head(small_features(96, 160), (96, 160))
    for logits in (outputs.logits, outputs.auxiliary):
        # 16 features of order one times weights of 0.01.
        assert logits.abs().max() < 0.3
    for classifier in (head.classifier, head.auxiliary[-1]):
        assert classifier.weight.abs().max() <= 0.02
        assert (classifier.bias == 0).all()


def test_convolutions_start_with_he_variance():
    head = DeepLabV3(SPECS, 5, head_features=HEAD_FEATURES, aspp="separable")
    for conv in (head.aspp.pointwise.conv, head.aspp.atrous[0][0].conv, head.aspp.project.conv):
        fan_in = conv.weight[0].numel()
        # 10 % tolerance: at least a few hundred draws.
        assert conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


# Training


def pooled_norm(head):
    return head.aspp.pool.norm


def state_of(norm):
    return {name: value.clone() for name, value in norm.named_buffers()}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("settings", VARIANTS)
def test_every_parameter_gets_a_finite_gradient(settings, count):
    torch.manual_seed(0)
    model = Segmenter(**settings)
    for norm in model.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # residual blocks start as the identity
    outputs = model(random_images(97, 129, count))
    # With the least likely labels as targets, every parameter that can get a gradient gets one.
    loss = F.cross_entropy(outputs.logits, outputs.logits.detach().argmin(1))
    if outputs.auxiliary is not None:
        loss = loss + F.cross_entropy(outputs.auxiliary, outputs.auxiliary.detach().argmin(1))
    assert loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_one_image_is_pooled_as_in_evaluation_and_does_not_update_the_statistics():
    head = randomise(small_head(), gain=2**0.5)
    pooled = small_features(96, 160, count=1)[HIGH].mean(dim=(2, 3), keepdim=True)
    before = state_of(pooled_norm(head))
    with torch.no_grad():
        expected = head.aspp.pool(pooled)
        normalised = head.train().aspp.pool(pooled)
    assert torch.equal(normalised, expected)
    assert all(torch.equal(v, before[k]) for k, v in state_of(pooled_norm(head)).items())


def test_two_images_are_pooled_by_their_own_statistics_and_update_the_running_ones():
    head = randomise(small_head(), gain=2**0.5).train()
    pooled = small_features(96, 160)[HIGH].mean(dim=(2, 3), keepdim=True)
    before = state_of(pooled_norm(head))
    head.aspp.pool(pooled)
    after = state_of(pooled_norm(head))
    assert after["num_batches_tracked"] == 1
    assert not torch.equal(after["running_mean"], before["running_mean"])
    assert not torch.equal(after["running_var"], before["running_var"])


def test_pooled_norm_equals_batch_norm_for_several_values():
    ours, theirs = (
        randomise(PooledBatchNorm2d(4)).train(),
        randomise(nn.BatchNorm2d(4)).train(),
    )
    x = random_images(6, 8, count=4)[:, :1].reshape(1, 4, 6, 8)
    for batch in (x, x.reshape(4, 4, 3, 4)):
        assert torch.equal(ours(batch), theirs(batch))
    assert torch.equal(ours.eval()(x[:, :, :1, :1]), theirs.eval()(x[:, :, :1, :1]))


@pytest.mark.parametrize("settings", VARIANTS)
def test_training_mode_changes_only_dropout_and_norms(settings):
    model = randomise(Segmenter(**settings), gain=2**0.5)
    with torch.no_grad():
        expected = model(random_images(64, 97))
        model.train()
        for m in model.modules():
            if isinstance(m, (nn.Dropout, nn.BatchNorm2d)):
                m.eval()
        outputs = model(random_images(64, 97))
    for name in ("logits", "rows", "columns", "auxiliary"):
        a, b = getattr(outputs, name), getattr(expected, name)
        assert (a is None) == (b is None) == (name == "auxiliary" and "auxiliary" not in settings)
        assert a is None or torch.equal(a, b)


# Surroundings


@pytest.mark.parametrize("settings", [{}, VARIANTS[-1]])
def test_export_equals_the_eager_network(settings):
    torch.manual_seed(0)
    model = randomise(Segmenter(output_stride=8, **settings), gain=2**0.5)
    graph = torch.export.export(model, (random_images(64, 97),)).module()
    with torch.no_grad():
        expected, outputs = model(random_images(64, 97)), graph(random_images(64, 97))
    assert isinstance(outputs, SegmentationOutputs)
    # The same float32 operations; only the graph was rewritten.
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    if settings:
        torch.testing.assert_close(outputs.auxiliary, expected.auxiliary, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.rows, expected.rows)
    assert torch.equal(outputs.columns, expected.columns)


@pytest.mark.parametrize("settings", VARIANTS)
def test_bfloat16_autocast_is_near_float32(settings):
    head = randomise(small_head(**settings), gain=2**0.5)
    features = small_features(96, 160)
    with torch.no_grad():
        expected = head(features, (96, 160)).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = head(features, (96, 160)).logits
    # bfloat16 has a precision of eight bits: 0.4 % of the values of every layer, over three to
    # seven layers.
    assert (logits.float() - expected).abs().mean() < 0.02 * expected.std()


def test_bfloat16_weights_run_the_decoder():
    head = randomise(small_head(decoder=True), gain=2**0.5).bfloat16()
    features = {feature: x.bfloat16() for feature, x in small_features(96, 160).items()}
    with torch.no_grad():
        assert head(features, (96, 160)).logits.dtype == torch.bfloat16
