import pytest
import torch
from networks import random_images, randomise
from torch import nn

from mbv2det.backbones import Feature, FeatureSpec, MobileNetV2
from mbv2det.backbones.dilation import subsample
from mbv2det.backbones.grid import cell_centres, grid_centres, phase
from mbv2det.backbones.layers import conv2d
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.heads.ssdlite import SSDLite

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = MobileNetV2.head_features
DETECTION_FEATURES = (FEATURES.stride_16, FEATURES.stride_32)
LAYER_18, LAYER_19 = Feature("layer_18"), Feature("layer_19")
PADDINGS = ["symmetric", "same"]
SIZES = [(96, 128), (97, 129), (90, 131), (225, 225)]


def backbone(output_stride, out_features, padding="symmetric", **settings):
    """Returns a backbone with the same random weights at every output stride."""
    net = MobileNetV2(0.35, output_stride, out_features=out_features, padding=padding, **settings)
    return randomise(net)


# Positions


def central_weights(padding, times):
    """Returns stride-2 convolutions whose only nonzero weight is the central one."""
    convs = nn.Sequential(*(conv2d(1, 1, 3, stride=2, padding=padding) for _ in range(times)))
    for conv in convs:
        conv.weight.data = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]).view(1, 1, 3, 3)
    return convs


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_cell_centres_are_those_of_real_convolutions(times, padding):
    convs = central_weights(padding, times)
    for size in range(1, 100):
        ramp = torch.arange(float(size)).view(1, 1, 1, size)
        with torch.no_grad():
            positions = convs(ramp.expand(1, 1, 3, size))[0, 0, 0]
        assert torch.equal(cell_centres(size, 2**times, padding), positions), size


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(96, 100), (97, 105), (98, 103)])
def test_cells_lie_in_the_middle_of_their_receptive_fields(size, padding):
    layer_7 = Feature("layer_7")
    net = MobileNetV2(0.35, out_features=[layer_7], padding=padding).double().eval()
    for m in net.modules():  # equal weights: the gradient is symmetric about the centre
        if isinstance(m, nn.Conv2d):
            nn.init.constant_(m.weight, 1 / m.weight[0].numel())
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.ones_(m.weight)
    x = torch.full((1, 3, *size), 0.01, dtype=torch.float64, requires_grad=True)
    feature = net(x)[layer_7]
    h, w = feature.shape[2:]
    # The receptive field has 59 pixels: that of the middle cell lies inside the image.
    feature[0, 0, h // 2, w // 2].backward()
    gradient = x.grad[0].sum(0)
    for axis, centres in enumerate(grid_centres(size, 8, padding)):
        profile = gradient.sum(1 - axis)
        middle = (profile * torch.arange(size[axis])).sum() / profile.sum()
        assert middle.item() == pytest.approx(centres[(h, w)[axis] // 2].item(), abs=1e-9)


def test_positions_of_an_even_size_under_same_padding():
    # 20 -> 10 cells at 1, 3, ...; 10 -> 5 at every second of those from the second: 3, 7, ...;
    # 5 is odd: 3 cells at every second from the first.
    assert cell_centres(20, 8, "same").tolist() == [3, 11, 19]
    assert cell_centres(20, 8, "symmetric").tolist() == [0, 8, 16]


@pytest.mark.parametrize(
    ("size", "padding", "expected"),
    [(6, "same", 1), (7, "same", 0), (6, "symmetric", 0), (7, "symmetric", 0)],
)
def test_phase(size, padding, expected):
    assert phase(size, padding) == expected


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
def test_subsampling_keeps_the_cells_that_strided_convolutions_are_centred_on(size, padding):
    x = random_images(*size)[:, :1]
    for times in range(4):
        with torch.no_grad():
            assert torch.equal(subsample(x, times, padding), central_weights(padding, times)(x))


# Features at a stride


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_backbone_contains_the_features_of_a_strided_one(output_stride, size, padding):
    dilated = backbone(output_stride, DETECTION_FEATURES, padding)
    strided = backbone(32, (Feature("layer_15", part="expansion"), LAYER_19), padding)
    with torch.no_grad():
        features, expected = dilated(random_images(*size)), strided(random_images(*size))
    for feature, value in zip(DETECTION_FEATURES, expected.values(), strict=True):
        assert value.std() > 0.1  # the signal has not died out
        # The same float32 products, added in another order, over eighteen layers.
        torch.testing.assert_close(features[feature], value, rtol=1e-5, atol=1e-5)


def test_output_stride_8_contains_the_features_of_16():
    fine = backbone(8, [Feature("layer_14", stride=16), Feature("layer_18", stride=16)], "same")
    coarse = backbone(16, [Feature("layer_14"), LAYER_18], "same")
    with torch.no_grad():
        pairs = zip(
            fine(random_images(90, 131)).values(),
            coarse(random_images(90, 131)).values(),
            strict=True,
        )
        for subsampled, expected in pairs:
            torch.testing.assert_close(subsampled, expected, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_ssdlite_gives_the_same_outputs_on_a_dilated_backbone(output_stride, size, padding):
    slots = ClassSlots(3, "softmax", background=True)
    outputs = []
    for stride in (output_stride, 32):
        net = backbone(stride, DETECTION_FEATURES, padding)
        settings = {"head_features": net.head_features, "width_mult": 0.25, "padding": padding}
        head = randomise(SSDLite(net.feature_specs, slots, **settings), seed=2)
        with torch.no_grad():
            outputs.append(head(net(random_images(*size, count=2)), size))
    dilated, strided = outputs
    assert strided.logits.std() > 0.1
    # As for the features, through seven more layers.
    torch.testing.assert_close(dilated.logits, strided.logits, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(dilated.deltas, strided.deltas, rtol=1e-5, atol=2e-5)
    assert torch.equal(dilated.anchors, strided.anchors)


def test_a_feature_at_its_own_stride_is_unchanged():
    expansion, at_32 = DETECTION_FEATURES
    net = backbone(32, [LAYER_19, at_32, expansion])
    with torch.no_grad():
        features = net(random_images(64, 64))
    assert list(features) == [LAYER_19, at_32, expansion]
    assert torch.equal(features[LAYER_19], features[at_32])


def test_a_feature_can_be_requested_at_several_strides():
    requested = [
        Feature("layer_19", stride=32),
        Feature("layer_19", stride=16),
        Feature("layer_4"),
        Feature("layer_4", stride=16),
    ]
    net = backbone(8, requested, "same")
    with torch.no_grad():
        last_32, last_16, low, low_16 = features = list(net(random_images(96, 97)).values())
    assert [tuple(x.shape[2:]) for x in features] == [(3, 4), (6, 7), (24, 25), (6, 7)]
    assert torch.equal(last_32, subsample(last_16, 1, "same"))
    assert torch.equal(low_16, subsample(low, 2, "same"))


def test_the_last_layer_computes_the_requested_cells_only():
    net = backbone(8, [LAYER_18, Feature("layer_19", stride=32)])
    inputs = []
    net.layers["layer_19"].register_forward_pre_hook(lambda _m, args: inputs.extend(args))
    with torch.no_grad():
        net(random_images(96, 128))
    assert [tuple(x.shape[2:]) for x in inputs] == [(3, 4)]


def test_one_pass_can_return_other_features_than_the_constructors():
    net = backbone(8, [LAYER_19])
    with torch.no_grad():
        other = net(random_images(96, 128), [LAYER_18, Feature("layer_19", stride=16)])
        expected = backbone(8, list(other))(random_images(96, 128))
    assert list(other) == [LAYER_18, Feature("layer_19", stride=16)]
    assert all(torch.equal(other[feature], expected[feature]) for feature in expected)


def test_specs_of_features_at_a_stride_are_declared():
    net = MobileNetV2(output_stride=8, out_features=[*DETECTION_FEATURES, LAYER_18])
    assert net.feature_specs[Feature("layer_15", part="expansion", stride=16)] == FeatureSpec(
        576, 16
    )
    assert net.feature_specs[Feature("layer_19", stride=32)] == FeatureSpec(1280, 32)
    assert net.feature_specs[LAYER_19] == FeatureSpec(1280, 8)
    assert net.feature_specs[LAYER_18] == FeatureSpec(320, 8)


def test_a_requested_stride_changes_no_weights():
    with_stride = MobileNetV2(0.35, 16, out_features=[Feature("layer_19", stride=32)]).state_dict()
    assert list(with_stride) == list(MobileNetV2(0.35).state_dict())


@pytest.mark.parametrize("stride", [16, 12, 64, 0])
def test_a_stride_that_a_feature_cannot_have_is_refused(stride):
    message = (
        r"^out_features: expected one of the strides \[32\] for layer_18, which the backbone "
        rf"computes at stride 32, got {stride}$"
    )
    with pytest.raises(ValueError, match=message):
        MobileNetV2(out_features=[Feature("layer_18", stride=stride)])


def test_an_unknown_feature_at_a_stride_is_refused():
    with pytest.raises(ValueError, match=r"expected features among .*got layer_20 at stride 32$"):
        MobileNetV2(out_features=[Feature("layer_20", stride=32)])
