"""Settings of weights against settings of the user: values and differences, and no printing."""

import pytest

from mbv2det.errors import ConfigError
from mbv2det.model_config import BackboneConfig, carried_settings, shape_settings
from mbv2det.resolve import Difference, Overrides, Resolution, check_shapes, in_section, resolve


def test_weights_win_if_nothing_is_overridden():
    resolution = resolve({"eval.flip": True, "a": 1}, {"eval.flip": False, "a": 1}, Overrides())
    assert resolution.values == {"eval.flip": True, "a": 1}
    assert resolution.differences == (Difference("eval.flip", True, False, "the weights"),)
    assert resolution.overridden == ()


@pytest.mark.parametrize(
    ("overrides", "winner"),
    [
        (Overrides(frozenset({"eval.flip"})), "the command line"),
        (Overrides(frozenset({"eval"})), "the command line"),
        (Overrides(listed=("eval.flip",)), "override_weights"),
        (Overrides(frozenset({"eval.flip"}), ("eval.flip",)), "the command line"),
    ],
)
def test_overridden_settings_win(overrides, winner):
    found = resolve({"eval.flip": True}, {"eval.flip": False}, overrides)
    assert found.values == {"eval.flip": False}
    assert found.differences == (Difference("eval.flip", True, False, winner),)
    assert found.overridden == ("eval.flip",)


def test_a_name_that_is_only_a_prefix_overrides_nothing():
    assert Overrides(frozenset({"eval.fl", "eva"})).source("eval.flip") is None


def test_equal_values_are_no_difference_but_may_be_overridden():
    found = resolve({"a": 1}, {"a": 1}, Overrides(frozenset({"a"})))
    assert found.differences == ()
    assert found.overridden == ("a",)


def test_a_difference_is_one_line_of_text():
    line = str(Difference("data.resize", "fit", "stretch", "the weights"))
    assert line == "data.resize: fit in the weights, stretch configured; the weights win"
    line = str(Difference("data.resize", "fit", "stretch", "the command line"))
    assert line == "data.resize: fit in the weights, stretch configured; the command line wins"


def test_update_sets_the_values_of_its_section():
    found = Resolution({"backbone.padding": "same", "heads.detection.padding": "symmetric"})
    config = found.update("backbone", BackboneConfig(width_mult=0.5), norm_eps=1e-3)
    assert config == BackboneConfig(width_mult=0.5, padding="same", norm_eps=1e-3)


def test_shapes_that_differ_are_refused():
    check_shapes({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["a"], "file")
    with pytest.raises(ConfigError, match="b: expected 2, as in file, got 3"):
        check_shapes({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["a", "b"], "file")


def test_fields_declare_shape_and_carried_settings():
    config = BackboneConfig(width_mult=0.5)
    assert shape_settings(config) == {
        "name": "mobilenet_v2",
        "width_mult": 0.5,
        "scale_last_layer": False,
        "bottleneck": "linear",
        "shortcut": "bottleneck",
    }
    assert carried_settings(config) == {"padding": "symmetric", "norm_eps": 1e-5}
    assert in_section("backbone", {"padding": "same"}) == {"backbone.padding": "same"}
