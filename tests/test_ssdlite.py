import math
from functools import partial

import pytest
import torch
from networks import randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block

from mbv2det.backbones import FeatureSpec, MobileNetV2
from mbv2det.backbones.layers import Conv2dSame
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.heads.ssdlite import SSDLite
from mbv2det.model import MultiTaskModel, Normalize

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD_FEATURES = MobileNetV2.head_features
FINE, COARSE = HEAD_FEATURES.stride_16, HEAD_FEATURES.stride_32
SMALL_SPECS = {FINE: FeatureSpec(24, 16), COARSE: FeatureSpec(40, 32)}
GRIDS_320x512 = ((20, 32), (10, 16), (5, 8), (3, 4), (2, 2), (1, 1))
SOFTMAX = ClassSlots(3, "softmax", background=True)


def detector(slots, *, width_mult=1.0, **settings):
    backbone = MobileNetV2(width_mult, out_features=(FINE, COARSE))
    specs = backbone.feature_specs
    head = SSDLite(specs, slots, head_features=HEAD_FEATURES, width_mult=width_mult, **settings)
    return MultiTaskModel(Normalize((0.5,) * 3, (0.5,) * 3), backbone, {"detection": head})


def detector_on_meta(num_classes, background=True, **settings):
    with torch.device("meta"):
        return detector(ClassSlots(num_classes, "softmax", background), **settings).eval()


def num_params(module):
    return sum(p.numel() for p in module.parameters())


def num_madds(model, size):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2


def small_head(slots=SOFTMAX, **settings):
    torch.manual_seed(0)
    return SSDLite(
        SMALL_SPECS, slots, head_features=HEAD_FEATURES, width_mult=0.125, **settings
    ).eval()


def small_features(height, width, count=1):
    """Returns random features, with the grids of a backbone for an input of this size."""
    generator = torch.Generator().manual_seed(0)
    return {
        feature: torch.randn(
            count,
            spec.channels,
            math.ceil(height / spec.stride),
            math.ceil(width / spec.stride),
            generator=generator,
        )
        for feature, spec in SMALL_SPECS.items()
    }


def copy_in_order(source, target):
    """Copies tensors by position: both modules list the same layers in the same order."""
    ours, theirs = target.state_dict(), source.state_dict()
    target.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


# Counts


@pytest.mark.parametrize(
    ("num_classes", "background", "expected"),
    [(80, True, 4_337_013), (80, False, 4_320_660), (90, True, 4_500_543)],
)
def test_parameters(num_classes, background, expected):
    assert num_params(detector_on_meta(num_classes, background)) == expected


def test_parameters_of_the_head_alone():
    assert num_params(detector_on_meta(80).heads) == 2_113_141
    assert num_params(detector_on_meta(80, lite=False).heads) == 14_776_629


@pytest.mark.parametrize(
    ("num_classes", "size", "millions"), [(80, 320, 788.8), (80, 300, 734.6), (90, 300, 749.5)]
)
def test_multiply_adds(num_classes, size, millions):
    # The published numbers have one decimal.
    madds = num_madds(detector_on_meta(num_classes), size) / 1e6
    assert madds == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(
    ("size", "grids", "num_anchors"),
    [(320, [20, 10, 5, 3, 2, 1], 2034), (300, [19, 10, 5, 3, 2, 1], 1917)],
)
def test_grids_and_anchors(size, grids, num_anchors, padding):
    head = small_head(padding=padding)
    shapes = []
    for predictor in head.box_predictors:
        predictor.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape[2:]))
    outputs = head(small_features(size, size), (size, size))
    assert shapes == [(grid, grid) for grid in grids]
    assert outputs.anchors.shape == (num_anchors, 4)
    assert outputs.logits.shape == (1, num_anchors, SOFTMAX.num_slots)
    assert outputs.deltas.shape == (1, num_anchors, 4)


def test_channels_of_the_extra_levels_scale_down_to_sixteen():
    # 512, 256, 256, 128 times 0.1: 51.2, 25.6, 25.6, 12.8; rounded down, to 16 at least.
    head = SSDLite(SMALL_SPECS, SOFTMAX, head_features=HEAD_FEATURES, width_mult=0.1)
    assert [extra[-1].conv.out_channels for extra in head.extras] == [51, 25, 25, 16]


def test_settings_reach_every_layer():
    head = small_head(padding="same", norm_eps=0.5, norm_momentum=0.25)
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}
    wide = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert {type(conv) for conv in wide} == {Conv2dSame}


# Order of the outputs


def rows_of_level(level, grids, per_cell):
    start = sum(h * w * n for (h, w), n in zip(grids[:level], per_cell[:level], strict=True))
    return start, start + grids[level][0] * grids[level][1] * per_cell[level]


class OneCell(nn.Module):
    """A predictor that outputs `value` for one box of one cell and 0 everywhere else."""

    def __init__(self, num_boxes, width, cell, box, value):
        super().__init__()
        self.shape = num_boxes, width
        self.cell, self.box, self.value = cell, box, value

    def forward(self, level):
        num_boxes, width = self.shape
        out = level.new_zeros(level.shape[0], num_boxes, width, *level.shape[2:])
        out[:, self.box, :, self.cell[0], self.cell[1]] = self.value
        return out.flatten(1, 2)


@pytest.mark.parametrize(
    ("level", "cell", "box"),
    [(0, (3, 29), 1), (0, (19, 0), 2), (1, (7, 15), 4), (2, (4, 1), 5), (3, (0, 3), 3)],
)
def test_logits_and_deltas_lie_in_the_rows_of_their_anchors(level, cell, box):
    head = small_head()
    per_cell = head.anchors.per_cell(6)
    slots = torch.arange(1.0, SOFTMAX.num_slots + 1)
    corners = torch.arange(5.0, 9.0)
    for k, n in enumerate(per_cell):
        here = k == level
        head.class_predictors[k] = OneCell(n, 4, cell if here else (0, 0), box % n, slots * here)
        head.box_predictors[k] = OneCell(n, 4, cell if here else (0, 0), box % n, corners * here)
    outputs = head(small_features(320, 512), (320, 512))
    (row,) = outputs.logits[0].any(dim=1).nonzero().flatten().tolist()
    assert outputs.logits[0, row].tolist() == slots.tolist()
    assert outputs.deltas[0].any(dim=1).nonzero().flatten().tolist() == [row]
    assert outputs.deltas[0, row].tolist() == corners.tolist()
    # The anchor of that row: centred on the cell, and of the box's shape.
    x_min, y_min, x_max, y_max = outputs.anchors[row].tolist()
    rows, columns = GRIDS_320x512[level]
    assert (x_min + x_max) / 2 == pytest.approx((cell[1] + 0.5) * 512 / columns, abs=1e-3)
    assert (y_min + y_max) / 2 == pytest.approx((cell[0] + 0.5) * 320 / rows, abs=1e-3)
    scale, ratio = head.anchors.shapes(6)[level][box]
    assert x_max - x_min == pytest.approx(320 * scale * ratio**0.5, abs=1e-3)  # float32 at 500
    assert y_max - y_min == pytest.approx(320 * scale / ratio**0.5, abs=1e-3)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_bright_spot_raises_the_logits_of_the_anchors_around_it(axis):
    # With non-negative weights a bright spot can only raise logits, most of all at its own cell.
    torch.manual_seed(0)
    model = detector(SOFTMAX, width_mult=0.35).eval()
    spot = (144, 400) if axis == "x" else (240, 112)
    model.normalize = Normalize((0.0,) * 3, (1.0,) * 3)
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            m.weight.data.fill_(1.0 / m.weight[0].numel())
    images = torch.zeros(1, 3, 320, 512, dtype=torch.uint8)
    images[:, :, spot[0] - 16 : spot[0] + 16, spot[1] - 16 : spot[1] + 16] = 255
    with torch.no_grad():
        outputs = model(images)["detection"]
    first = slice(*rows_of_level(0, GRIDS_320x512, model.heads["detection"].anchors.per_cell(6)))
    response = outputs.logits[0, first, 0].double()
    anchors = outputs.anchors[first]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    peak = (centres * response[:, None]).sum(0) / response.sum()
    # Padding (1, 1) shifts the sampling towards the corner by half a cell of 16 px at most.
    assert peak.tolist() == pytest.approx([spot[1], spot[0]], abs=16)


# Parity


def test_predictors_equal_torchvisions_ssdlite_head():
    channels = [head_in.in_channels for head_in in _depthwise_of(small_head())]
    head = randomise(small_head())
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    reference = SSDLiteHead(channels, head.anchors.per_cell(6), SOFTMAX.num_slots, norm).eval()
    copy_in_order(head.class_predictors, reference.classification_head)
    copy_in_order(head.box_predictors, reference.regression_head)
    features = small_features(96, 160, count=2)
    levels = list(features.values())
    with torch.no_grad():
        for extra in head.extras:
            levels.append(extra(levels[-1]))
        outputs, expected = head(features, (96, 160)), reference(levels)
    assert expected["cls_logits"].std() > 0.5  # the outputs are not constant
    # The same float32 operations on the same weights.
    torch.testing.assert_close(outputs.logits, expected["cls_logits"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.deltas, expected["bbox_regression"], rtol=1e-5, atol=1e-5)


def _depthwise_of(head):
    return [predictor[0].conv for predictor in head.class_predictors]


def test_extra_levels_equal_torchvisions():
    head = randomise(small_head())
    x = torch.randn(2, 40, 10, 13, generator=torch.Generator().manual_seed(0))
    for extra in head.extras:
        channels = extra[-1].conv.out_channels
        theirs = _extra_block(x.shape[1], channels, partial(nn.BatchNorm2d, eps=1e-3)).eval()
        copy_in_order(extra, theirs)
        with torch.no_grad():
            expected, x = theirs(x), extra(x)
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)  # float32


# Initialisation


def class_biases(head):
    return torch.cat([predictor[-1].bias.detach() for predictor in head.class_predictors])


def test_the_prior_is_the_initial_score():
    head = small_head(ClassSlots(3, "sigmoid", background=False), prior=0.01)
    # float32 logit and sigmoid
    torch.testing.assert_close(
        class_biases(head).sigmoid(), torch.full_like(class_biases(head), 0.01), rtol=1e-5, atol=0
    )
    assert all((predictor[-1].bias == 0).all() for predictor in head.box_predictors)


def test_the_prior_of_full_ssd_is_set_in_its_only_convolution():
    head = small_head(ClassSlots(3, "sigmoid", background=False), lite=False, prior=0.01)
    biases = torch.cat([predictor.bias for predictor in head.class_predictors])
    assert {round(bias, 4) for bias in biases.tolist()} == {-4.5951}  # ln(1 / 99)


def test_the_prior_does_not_apply_to_the_background_slot():
    head = small_head(ClassSlots(3, "sigmoid", background=True), prior=0.01)
    by_anchor = class_biases(head).view(-1, 4)
    assert (by_anchor[:, 0] == 0).all()
    assert (by_anchor[:, 1:] < -4.5).all()


def test_without_a_prior_biases_are_zero():
    assert (class_biases(small_head()) == 0).all()


def test_weights_are_drawn_from_a_truncated_normal():
    weights = torch.cat([m.weight.flatten() for m in small_head().modules() if is_conv(m)])
    assert weights.abs().max() <= 0.06
    # Truncation at two standard deviations leaves 0.88 of the 0.03; ten thousand draws: 1 %.
    assert weights.std().item() == pytest.approx(0.03 * 0.8796, rel=0.03)


def is_conv(module):
    return isinstance(module, nn.Conv2d)


# The model around it


def test_normalize_maps_pixels_by_mean_and_deviation():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    normalised = Normalize((0.5, 0.4, 0.2), (0.5, 0.3, 0.25))(images).flatten()
    # (0 - 0.5) / 0.5, (1 - 0.4) / 0.3, (0.2 - 0.2) / 0.25
    torch.testing.assert_close(normalised, torch.tensor([-1.0, 2.0, 0.0]), rtol=1e-6, atol=1e-6)


def test_mean_and_deviation_are_not_in_the_state_dict():
    assert not Normalize((0.5,) * 3, (0.5,) * 3).state_dict()


@pytest.mark.parametrize("training", [True, False])
def test_outputs_have_one_type_in_training_and_evaluation(training):
    model = detector(SOFTMAX, width_mult=0.35).train(training)
    outputs = model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    assert list(outputs) == ["detection"]
    assert isinstance(outputs["detection"], SSDOutputs)


def test_every_parameter_gets_a_finite_gradient():
    torch.manual_seed(0)
    model = detector(SOFTMAX, width_mult=0.35)
    images = torch.randint(0, 256, (2, 3, 128, 160), dtype=torch.uint8)
    outputs = model(images)["detection"]
    (outputs.logits.square().sum() + outputs.deltas.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.fixture(scope="module")
def exported():
    """Returns a network that was never run, its export, and images of the exported size."""
    torch.manual_seed(0)
    model = randomise(detector(SOFTMAX, width_mult=0.35))
    images = torch.randint(0, 256, (1, 3, 96, 224), dtype=torch.uint8)
    return model, torch.export.export(model, (images,)).module(), images


def test_export_equals_the_eager_network(exported):
    model, graph, images = exported
    with torch.no_grad():
        expected, outputs = model(images)["detection"], graph(images)["detection"]
    # The same float32 operations; only the graph was rewritten.
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.deltas, expected.deltas, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.anchors, expected.anchors)


def test_export_does_not_leave_fake_tensors_as_anchors(exported):
    model, _, images = exported
    with torch.no_grad():
        assert type(model(images)["detection"].anchors) is torch.Tensor
