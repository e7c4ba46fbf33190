import pytest
import torch
from networks import random_images, randomise
from torch import nn

from mbv2det.backbones import FeatureSpec, MobileNetV2
from mbv2det.backbones.layers import cell_centres, conv2d, grid_centres, phase, subsample
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.heads.ssdlite import SSDLite

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCES = MobileNetV2.taps.detection
PADDINGS = ["symmetric", "same"]
SIZES = [(96, 128), (97, 129), (90, 131), (225, 225)]


def backbone(output_stride, out_features, padding="symmetric", **settings):
    """The same weights whatever the output stride."""
    net = MobileNetV2(0.35, output_stride, out_features=out_features, padding=padding, **settings)
    return randomise(net)


# Positions


def only_the_middle(padding, times):
    """Stride-2 convolutions that pass on what they are centred on."""
    convs = nn.Sequential(*(conv2d(1, 1, 3, stride=2, padding=padding) for _ in range(times)))
    for conv in convs:
        conv.weight.data = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]).view(1, 1, 3, 3)
    return convs


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_cells_lie_where_real_convolutions_are_centred(times, padding):
    convs = only_the_middle(padding, times)
    for size in range(1, 100):
        ramp = torch.arange(float(size)).view(1, 1, 1, size)
        with torch.no_grad():
            found = convs(ramp.expand(1, 1, 3, size))[0, 0, 0]
        assert torch.equal(cell_centres(size, 2**times, padding), found), size


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(96, 100), (97, 105), (98, 103)])
def test_cells_lie_in_the_middle_of_what_the_backbone_sees(size, padding):
    net = MobileNetV2(0.35, out_features=["layer_7"], padding=padding).double().eval()
    for m in net.modules():  # weights alike: the gradient is symmetric about the centre
        if isinstance(m, nn.Conv2d):
            nn.init.constant_(m.weight, 1 / m.weight[0].numel())
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.ones_(m.weight)
    x = torch.full((1, 3, *size), 0.01, dtype=torch.float64, requires_grad=True)
    feature = net(x)["layer_7"]
    h, w = feature.shape[2:]
    # The receptive field has 59 pixels: around the middle cell it stays inside.
    feature[0, 0, h // 2, w // 2].backward()
    seen = x.grad[0].sum(0)
    for axis, centres in enumerate(grid_centres(size, 8, padding)):
        profile = seen.sum(1 - axis)
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
def test_subsampling_keeps_what_strided_convolutions_are_centred_on(size, padding):
    x = random_images(*size)[:, :1]
    for times in range(4):
        with torch.no_grad():
            assert torch.equal(subsample(x, times, padding), only_the_middle(padding, times)(x))


# Features at a stride


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_dilated_backbone_holds_the_features_of_a_strided_one(output_stride, size, padding):
    dilated = backbone(output_stride, SOURCES, padding)
    strided = backbone(32, ("layer_15/expansion", "layer_19"), padding)
    with torch.no_grad():
        found, expected = dilated(random_images(*size)), strided(random_images(*size))
    for name, feature in zip(SOURCES, expected.values(), strict=True):
        assert feature.std() > 0.1  # the signal has not died out
        # The same float32 products, added in another order, over eighteen layers.
        torch.testing.assert_close(found[name], feature, rtol=1e-5, atol=1e-5)


def test_output_stride_8_holds_what_16_computes():
    found = backbone(8, ["layer_14@16", "layer_18@16"], "same")
    expected = backbone(16, ["layer_14", "layer_18"], "same")
    with torch.no_grad():
        pairs = zip(
            found(random_images(90, 131)).values(),
            expected(random_images(90, 131)).values(),
            strict=True,
        )
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_ssdlite_says_the_same_on_a_dilated_backbone(output_stride, size, padding):
    slots = ClassSlots(3, "softmax", background=True)
    outputs = []
    for stride in (output_stride, 32):
        net = backbone(stride, SOURCES, padding)
        settings = {"taps": net.taps, "width_mult": 0.25, "padding": padding}
        head = randomise(SSDLite(net.feature_specs, slots, **settings), seed=2)
        with torch.no_grad():
            outputs.append(head(net(random_images(*size, count=2)), size))
    found, expected = outputs
    assert expected.logits.std() > 0.1
    # As for the features, through seven more layers.
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found.deltas, expected.deltas, rtol=1e-5, atol=2e-5)
    assert torch.equal(found.anchors, expected.anchors)


def test_at_its_own_stride_a_feature_is_itself():
    net = backbone(32, ["layer_19", "layer_19@32", "layer_15/expansion@16"])
    with torch.no_grad():
        found = net(random_images(64, 64))
    assert list(found) == ["layer_19", "layer_19@32", "layer_15/expansion@16"]
    assert torch.equal(found["layer_19"], found["layer_19@32"])


def test_a_feature_can_be_had_at_several_strides():
    net = backbone(8, ["layer_19@32", "layer_19@16", "layer_4", "layer_4@16"], "same")
    with torch.no_grad():
        found = net(random_images(96, 97))
    assert [tuple(f.shape[2:]) for f in found.values()] == [(3, 4), (6, 7), (24, 25), (6, 7)]
    assert torch.equal(found["layer_19@32"], subsample(found["layer_19@16"], 1, "same"))
    assert torch.equal(found["layer_4@16"], subsample(found["layer_4"], 2, "same"))


def test_the_last_layer_computes_only_the_cells_that_are_asked_for():
    net = backbone(8, ["layer_18", "layer_19@32"])
    seen = []
    net.layers["layer_19"].register_forward_pre_hook(lambda _m, inputs: seen.extend(inputs))
    with torch.no_grad():
        net(random_images(96, 128))
    assert [tuple(x.shape[2:]) for x in seen] == [(3, 4)]


def test_specs_of_features_at_a_stride_are_declared():
    net = MobileNetV2(output_stride=8, out_features=[*SOURCES, "layer_18"])
    assert net.feature_specs["layer_15/expansion@16"] == FeatureSpec(576, 16)
    assert net.feature_specs["layer_19@32"] == FeatureSpec(1280, 32)
    assert net.feature_specs["layer_19"] == FeatureSpec(1280, 8)
    assert net.feature_specs["layer_18"] == FeatureSpec(320, 8)


def test_names_with_a_stride_change_no_weights():
    with_stride = MobileNetV2(0.35, 16, out_features=["layer_19@32"]).state_dict()
    assert list(with_stride) == list(MobileNetV2(0.35).state_dict())


@pytest.mark.parametrize("name", ["layer_18@16", "layer_18@12", "layer_18@64", "layer_18@"])
def test_a_stride_that_a_feature_cannot_have_is_refused(name):
    with pytest.raises(ValueError, match=rf"layer_18 has stride 32 here.*\[32\], got '{name}'"):
        MobileNetV2(out_features=[name])


def test_an_unknown_feature_at_a_stride_is_refused():
    with pytest.raises(ValueError, match=r"expected names among .*got 'layer_20@32'"):
        MobileNetV2(out_features=["layer_20@32"])
