"""The network of GFL-Lite: sizes, levels, shared weights, and the order of its outputs."""

import pytest
import torch
from networks import random_images, randomise
from runs import ROOT
from torch import nn

from mbv2det.backbones import FeatureSpec, MobileNetV2
from mbv2det.backbones.feature import Feature
from mbv2det.build import build_model, build_preprocess
from mbv2det.cli.settings import SettingsParser
from mbv2det.counting import count, count_parameters
from mbv2det.deploy.prepare import prepared
from mbv2det.detection.postprocess import PointPostprocess
from mbv2det.geometry import Frame
from mbv2det.heads.gfl_lite import GFLLite, GFLLiteConfig
from mbv2det.heads.shared_conv import SharedConv
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = Feature("fine"), Feature("middle"), Feature("coarse")
SPECS = {
    feature: FeatureSpec(channels, stride)
    for feature, channels, stride in zip(FEATURES, (4, 6, 8), (8, 16, 32), strict=True)
}
EIGHTY = LabelMap.of_masks([str(i) for i in range(80)])
THREE = LabelMap.of_masks(("cat", "dog", "cow"))


def small_head(**settings):
    return GFLLite(SPECS, FEATURES, 3, channels=16, **settings).eval()


def features_of(height, width):
    generator = torch.Generator().manual_seed(0)
    return {
        feature: torch.randn(
            1, spec.channels, -(-height // spec.stride), -(-width // spec.stride),
            generator=generator,
        )
        for feature, spec in SPECS.items()
    }  # fmt: skip


def detector(backbone=BackboneConfig(width_mult=0.1), size=(64, 96), label_map=THREE, **settings):
    head = GFLLiteConfig(**{"channels": 16, **settings})
    config = ModelConfig(backbone, {"detection": head})
    return build_model(config, PreprocessSpec(size), {"detection": label_map})


# Sizes


@pytest.mark.parametrize(
    ("name", "parameters", "billions"),
    [
        ("gfl_lite_coco", 2_069_360, 0.781),
        ("gfl_lite_small_coco", 734_480, 0.401),
        ("gfl_lite_large_coco", 4_016_592, 1.514),
    ],
)
def test_parameters_and_multiply_adds_of_the_coco_configurations(name, parameters, billions):
    config = SettingsParser("").parse([str(ROOT / f"configs/{name}.yaml")]).config
    with torch.device("meta"):
        model = build_model(config.model(), build_preprocess(config.data), {"detection": EIGHTY})
        images = torch.empty(1, 3, 320, 320)
    counts = count(model.eval(), lambda: model(images))
    assert config.data.size == (320, 320)
    assert counts.parameters == parameters
    assert counts.multiply_adds / 1e9 == pytest.approx(billions, abs=5e-4)


def test_the_last_layer_of_the_backbone_is_spared():
    assert list(detector().backbone.layers)[-1] == "layer_18"


# Levels


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((320, 320), [(40, 40), (20, 20), (10, 10), (5, 5)]),
        ((300, 513), [(38, 65), (19, 33), (10, 17), (5, 9)]),
        ((32, 32), [(4, 4), (2, 2), (1, 1), (1, 1)]),
    ],
)
def test_levels_have_the_grids_of_strides_8_to_64(size, grids, padding):
    outputs = small_head(padding=padding)(features_of(*size), size)
    counts = [rows * columns for rows, columns in grids]
    assert outputs.levels.bincount().tolist() == counts
    assert outputs.logits.shape == (1, sum(counts), 3)
    assert outputs.sides.shape == (1, sum(counts), 4, 8)
    assert outputs.points[0].tolist() == [
        pytest.approx(size[1] / grids[0][1] / 2), pytest.approx(size[0] / grids[0][0] / 2),
        pytest.approx(size[1] / grids[0][1]), pytest.approx(size[0] / grids[0][0]),
    ]  # fmt: skip


def test_a_change_in_one_corner_reaches_every_level():
    """The path from coarse to fine, and that back, connect all levels."""
    head, features = randomise(small_head()), features_of(64, 64)
    changed = {k: v.clone() for k, v in features.items()}
    changed[FEATURES[2]][..., 0, 0] += 10
    with torch.no_grad():
        before, after = (head.pyramid(list(f.values())) for f in (features, changed))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_outputs_are_the_same_on_a_dilated_backbone(output_stride):
    images = random_images(97, 129)
    outputs = []
    for stride in (output_stride, 32):
        head_features = GFLLiteConfig().features(MobileNetV2.head_features)
        net = MobileNetV2(0.25, stride, out_features=head_features)
        head = GFLLite(net.feature_specs, head_features, 3, channels=16)
        with torch.no_grad():
            features = randomise(net, gain=1.2)(images)
            outputs.append(randomise(head, seed=2)(features, (97, 129)))
    dilated, strided = outputs
    assert torch.equal(dilated.points, strided.points)
    assert strided.logits.std() > 0.1  # the signal has not died out
    # The same float32 products, added in another order, over up to 25 layers.
    torch.testing.assert_close(dilated.logits, strided.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dilated.sides, strided.sides, rtol=1e-4, atol=1e-4)


# Shared weights


def test_levels_share_weights_and_have_norms_of_their_own():
    head = small_head()
    shared = [m for m in head.modules() if isinstance(m, SharedConv)]
    assert len(shared) == 6  # depthwise and pointwise, common, for classes and for boxes
    assert all(len(m.norms) == 4 for m in shared)
    x = torch.randn(1, 16, 5, 5)
    first = shared[0]
    with torch.no_grad():
        first.norms[1].bias += 1
        assert torch.equal(first(x, 0), first(x, 2))
        assert not torch.equal(first(x, 0), first(x, 1))


def test_a_prepared_network_computes_the_same():
    model = randomise(detector())
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected, got = (net(images)["detection"] for net in (model, prepared(model)))
    # Folding the norms changes the order of float32 products.
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.sides, expected.sides, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared(model).heads.modules())


# Outputs


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_a_box_is_where_its_cell_is(size):
    """One cell of one level predicts a box; every other score is 0."""
    model = detector(size=size)
    head = model.heads["detection"]
    for layer, value in ((head.class_layer, -20.0), (head.box_layer, -20.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    head.box_layer.bias.data.view(4, 8)[range(4), [1, 2, 3, 4]] = 20.0

    class OneCell(nn.Module):
        calls = 0

        def forward(self, x):
            logits = x.new_full((1, 3, *x.shape[-2:]), -20.0)
            if self.calls == 1:  # the level of stride 16
                logits[0, 2, 1, 3] = 20.0
            self.calls += 1
            return logits

    head.class_layer = OneCell()
    with torch.no_grad():
        outputs = model.eval()(torch.zeros(1, 3, *size, dtype=torch.uint8))["detection"]
    postprocess = GFLLiteConfig().build_postprocess(THREE, EvalConfig(score_threshold=0.5))
    assert isinstance(postprocess, PointPostprocess)
    (detections,) = postprocess(outputs, [Frame((1000, 1000))])
    # Row 1, column 3 at stride 16: centre (56, 24); 1, 2, 3 and 4 cells to the sides.
    assert detections.labels.tolist() == [2]
    expected = torch.tensor([[56 - 16, 24 - 32, 56 + 48, 24 + 64]]).clamp(min=0).float()
    torch.testing.assert_close(detections.boxes, expected, rtol=0, atol=1e-3)


def test_initial_scores_are_one_in_a_hundred_and_boxes_seven_cells_wide():
    torch.manual_seed(0)
    outputs = small_head()(features_of(64, 64), (64, 64))
    postprocess = GFLLiteConfig().build_postprocess(THREE, EvalConfig())
    boxes, scores = postprocess.decode(outputs)
    assert scores.mean().item() == pytest.approx(0.01, rel=0.1)
    sides = (boxes[0, :, 2:] - boxes[0, :, :2]) / outputs.points[:, 2:]
    assert sides.mean().item() == pytest.approx(7.0, rel=0.02)


def test_every_parameter_gets_a_finite_gradient():
    torch.manual_seed(0)
    model = detector()
    outputs = model(torch.randint(0, 256, (2, 3, 128, 160), dtype=torch.uint8))["detection"]
    (outputs.logits.square().sum() + outputs.sides.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_export_equals_the_eager_network_and_leaves_no_fake_tensors():
    model = randomise(detector())
    images = torch.randint(0, 256, (1, 3, 32, 224), dtype=torch.uint8)
    graph = torch.export.export(model, (images,)).module()
    with torch.no_grad():
        expected, outputs = model(images)["detection"], graph(images)["detection"]
    # The same float32 operations; only the graph was rewritten.
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.sides, expected.sides, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.points, expected.points)
    assert type(expected.points) is torch.Tensor


def test_the_width_of_the_backbone_does_not_change_the_head():
    narrow, wide = (
        count_parameters(detector(BackboneConfig(width_mult=w)).heads["detection"].common_block)
        for w in (0.1, 0.5)
    )
    assert narrow == wide
