import pytest
import torch
import torch.nn.functional as F
from networks import random_images, randomise
from torch import nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from mbv2det.backbones import Feature, FeatureSpec, MobileNetV2
from mbv2det.backbones.grid import cell_centres
from mbv2det.heads.lraspp import LRASPP, input_features
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD_FEATURES = MobileNetV2.head_features
INPUT_FEATURES = HIGH, LOW = Feature("layer_18"), Feature("layer_7")
SPECS = {HIGH: FeatureSpec(24, 16), LOW: FeatureSpec(12, 8)}


class Segmenter(nn.Module):
    """A backbone and an LR-ASPP head."""

    def __init__(self, output_stride=16, padding="same"):
        super().__init__()
        self.backbone = MobileNetV2(
            0.35, output_stride, out_features=INPUT_FEATURES, padding=padding
        )
        self.head = LRASPP(
            self.backbone.feature_specs, 5, head_features=HEAD_FEATURES, padding=padding
        )

    def forward(self, images):
        return self.head(self.backbone(images), tuple(images.shape[2:]))


def features(low_grid, high_grid):
    generator = torch.Generator().manual_seed(0)
    return {
        HIGH: torch.randn(2, 24, *high_grid, generator=generator),
        LOW: torch.randn(2, 12, *low_grid, generator=generator),
    }


def torchvision_head(head):
    """Returns torchvision's head with our weights."""
    reference = LRASPPHead(12, 24, 5, 128).eval()
    parts = [head.project, head.gate, head.low_classifier, head.high_classifier]
    ours = [tensor for part in parts for tensor in part.state_dict().values()]
    reference.load_state_dict(dict(zip(reference.state_dict(), ours, strict=True)))
    return reference


def test_the_head_reads_its_input_features():
    assert input_features(HEAD_FEATURES) == INPUT_FEATURES


def test_parameters():
    with torch.device("meta"):
        net = MobileNetV2(out_features=INPUT_FEATURES)
        head = LRASPP(net.feature_specs, 21, head_features=net.head_features)
    # 320 -> 128 twice, one norm, and two classifiers with bias.
    expected = 2 * 320 * 128 + 2 * 128 + (128 + 1) * 21 + (32 + 1) * 21
    assert sum(p.numel() for p in head.parameters()) == expected


def test_on_one_grid_logits_equal_torchvisions():
    specs = SPECS | {HIGH: FeatureSpec(24, 8)}
    head = randomise(LRASPP(specs, 5, head_features=HEAD_FEATURES))
    inputs = features((9, 13), (9, 13))
    with torch.no_grad():
        logits = head(inputs, (72, 104)).logits
        expected = torchvision_head(head)({"low": inputs[LOW], "high": inputs[HIGH]})
    assert expected.std() > 0.3  # the outputs are not constant
    # float32; interpolation between equal grids is the identity in both heads.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_on_two_grids_logits_equal_torchvisions_with_aligned_corners(monkeypatch):
    interpolate = F.interpolate

    def aligned(x, size, mode, align_corners):
        return interpolate(x, size, mode=mode, align_corners=True)

    monkeypatch.setattr("torchvision.models.segmentation.lraspp.F.interpolate", aligned)
    head = randomise(LRASPP(SPECS, 5, head_features=HEAD_FEATURES))
    # 65 and 97 pixels, 16 n + 1: the outer cells of both grids lie on the outer pixels.
    inputs = features((9, 13), (5, 7))
    with torch.no_grad():
        logits = head(inputs, (65, 97)).logits
        expected = torchvision_head(head)({"low": inputs[LOW], "high": inputs[HIGH]})
    # float32; ours classifies before the interpolation, theirs after it.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_coarse_logits_are_added_at_the_positions_of_the_fine_cells(output_stride, padding):
    model = randomise(Segmenter(output_stride, padding))
    head = model.head
    with torch.no_grad():
        outputs = model(random_images(97, 130))
        inputs = model.backbone(random_images(97, 130))
        nn.init.zeros_(head.low_classifier.weight)
        nn.init.zeros_(head.low_classifier.bias)
        high = head(inputs, (97, 130))
        gate = head.gate(inputs[HIGH].mean((2, 3), True)).sigmoid()
        coarse = head.high_classifier(head.project(inputs[HIGH]) * gate)
    assert torch.equal(outputs.rows, cell_centres(97, 8, padding))
    assert torch.equal(outputs.columns, cell_centres(130, 8, padding))
    assert outputs.logits.shape == (1, 5, 13, 17)
    at = cell_centres(97, output_stride, padding), cell_centres(130, output_stride, padding)
    assert torch.equal(high.logits, resample(coarse, at, (outputs.rows, outputs.columns)))
    assert not torch.equal(outputs.logits, high.logits)


@pytest.mark.parametrize("count", [1, 2])
def test_every_parameter_gets_a_finite_gradient(count):
    torch.manual_seed(0)
    model = Segmenter()
    for norm in model.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # residual blocks start as the identity
    logits = model(random_images(97, 129, count)).logits
    F.cross_entropy(logits, logits.detach().argmin(1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_all_labels_start_about_equally_likely():
    head = LRASPP(SPECS, 5, head_features=HEAD_FEATURES).eval()
    # 128 and 12 features of order one times weights of 0.01.
    assert head(features((9, 13), (5, 7)), (65, 97)).logits.abs().max() < 0.6
    for classifier in (head.high_classifier, head.low_classifier):
        assert classifier.weight.abs().max() <= 0.02
        assert (classifier.bias == 0).all()


def test_settings_reach_the_norm():
    norm = LRASPP(
        SPECS, 5, head_features=HEAD_FEATURES, norm_eps=0.5, norm_momentum=0.25
    ).project.norm
    assert (norm.eps, norm.momentum) == (0.5, 0.25)


def test_export_equals_the_eager_network():
    model = randomise(Segmenter())
    graph = torch.export.export(model, (random_images(64, 97),)).module()
    with torch.no_grad():
        expected, outputs = model(random_images(64, 97)), graph(random_images(64, 97))
    assert isinstance(outputs, SegmentationOutputs)
    assert outputs.auxiliary is None
    # The same float32 operations; only the graph was rewritten.
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.rows, expected.rows)
    assert torch.equal(outputs.columns, expected.columns)
