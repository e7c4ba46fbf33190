"""The classifier: of a backbone alone, and as the head of a model."""

import pytest
import torch
from networks import random_images, randomise

from mbv2det.backbones import Feature, FeatureSpec, HeadFeatures, MobileNetV2
from mbv2det.backbones.classifier import Classifier
from mbv2det.build import build_model
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec

pytestmark = pytest.mark.usefixtures("one_thread")

LABEL_MAP = LabelMap.of_masks([f"class {k}" for k in range(7)])
FEATURE = MobileNetV2.head_features.last


def classifier(dropout=0.2):
    torch.manual_seed(0)
    features = MobileNetV2.head_features
    return Classifier({FEATURE: FeatureSpec(12, 32)}, 7, head_features=features, dropout=dropout)


def test_logits_are_a_linear_function_of_the_averages():
    head = classifier().eval()
    x = torch.randn(2, 12, 3, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = head({FEATURE: x, Feature("layer_4"): x[:, :1]}, (96, 160))
    expected = x.flatten(2).mean(2) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)  # float32


def test_dropout_drops_averages_in_training():
    head = classifier(dropout=1.0)
    logits = head({FEATURE: torch.ones(2, 12, 3, 5)}, (96, 160))
    assert torch.equal(logits, head.linear.bias.expand(2, 7))


def test_the_classifier_reads_the_classification_feature():
    features = HeadFeatures(
        stride_4=Feature("a"),
        stride_8=Feature("a"),
        stride_16=Feature("a"),
        stride_32=Feature("b"),
        auxiliary=Feature("a"),
        dense=Feature("b"),
        last=Feature("c"),
    )
    specs = {Feature("b"): FeatureSpec(4, 32), Feature("c"): FeatureSpec(6, 32)}
    head = Classifier(specs, 3, head_features=features)
    assert head.input_feature == Feature("c")
    assert head.linear.in_features == 6


def test_initial_values():
    head = Classifier(
        {FEATURE: FeatureSpec(1280, 32)}, 100, head_features=MobileNetV2.head_features
    )
    assert list(head.state_dict()) == ["linear.weight", "linear.bias"]
    # 128,000 draws: the standard deviation is within 1 %.
    assert head.linear.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert (head.linear.bias == 0).all()
    assert head.class_layers() == [head.linear]


def test_a_head_and_a_backbones_own_classifier_give_the_same_logits():
    heads = {"classification": ClassifierConfig()}
    spec = PreprocessSpec((64, 96), "stretch")
    config = ModelConfig(BackboneConfig(width_mult=0.1), heads)
    model = randomise(build_model(config, spec, {"classification": LABEL_MAP}))
    state = model.state_dict()
    linear = ["heads.classification.linear.weight", "heads.classification.linear.bias"]
    assert [name for name in state if name.startswith("heads.")] == linear
    backbone = MobileNetV2(0.1, num_classes=7).eval().to(memory_format=torch.channels_last)
    backbone.load_state_dict(
        {
            name.replace("heads.classification.", "classifier.").removeprefix("backbone."): tensor
            for name, tensor in state.items()
        }
    )
    images = random_images(64, 96, count=2)
    with torch.no_grad():
        logits = model.heads["classification"](model.backbone(images), (64, 96))
        assert torch.equal(backbone.classify(images), logits)
