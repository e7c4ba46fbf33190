import pytest

from mbv2det.backbones import Feature


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        (Feature("layer_18"), "layer_18"),
        (Feature("layer_15", part="expansion"), "layer_15.expansion"),
        (Feature("layer_19", stride=32), "layer_19 at stride 32"),
        (Feature("layer_15", "expansion", 16), "layer_15.expansion at stride 16"),
    ],
)
def test_a_feature_is_readable_as_text(feature, text):
    assert str(feature) == text


def test_features_are_keys():
    feature = Feature("layer_15", part="expansion", stride=16)
    values = {feature: 1, feature.without_stride(): 2}
    assert values[Feature("layer_15", "expansion", 16)] == 1
    assert values[Feature("layer_15", "expansion")] == 2
