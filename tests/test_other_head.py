"""`--heads.TASK.name` takes another head than that of the file, with settings that it has."""

import pytest
import yaml

from mbv2det.cli.other_head import without_settings_of_other_heads
from mbv2det.cli.settings import SettingsParser
from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.lraspp import LRASPPConfig

HEADS = {
    "segmentation": {"name": "deeplabv3", "aspp": "full", "dropout": 0.2, "loss_weight": 2.0},
    "detection": {"name": "ssdlite", "class_loss": "focal"},
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"heads": HEADS}))
    return path


def heads_of(file, *arguments):
    return SettingsParser("").parse([str(file), *arguments]).config.heads


def test_settings_that_both_heads_have_are_kept_and_the_others_named(file, capsys):
    heads = heads_of(file, "--heads.segmentation.name=lraspp")
    assert heads["segmentation"] == LRASPPConfig(loss_weight=2.0)
    assert heads["detection"].class_loss == "focal"
    assert "heads.segmentation: aspp, dropout left out, which lraspp does not have" in str(
        capsys.readouterr()
    )


def test_the_name_in_the_file_changes_nothing(file):
    heads = heads_of(file, "--heads.segmentation.name=deeplabv3")
    assert heads["segmentation"] == DeepLabV3Config(aspp="full", dropout=0.2, loss_weight=2.0)


def test_settings_of_the_command_line_win(file):
    heads = heads_of(
        file, "--heads.segmentation.name=deeplabv3_light", "--heads.segmentation.dropout=0.3"
    )
    assert heads["segmentation"].dropout == 0.3


def test_a_setting_that_no_head_has_is_still_an_error(file, capsys):
    with pytest.raises(SystemExit):
        heads_of(file, "--heads.segmentation.name=lraspp", "--heads.segmentation.aspp=full")
    assert "unknown key 'heads.segmentation.aspp'" in capsys.readouterr().err


def test_an_unknown_name_lists_the_heads(file):
    with pytest.raises(ConfigError, match="expected one of deeplabv3, deeplabv3_light, lraspp"):
        heads_of(file, "--heads.segmentation.name=unet")


@pytest.mark.parametrize("text", ["", "heads: 1", "heads: {segmentation: 1}", "a: [", "- 1"])
def test_a_damaged_file_is_left_to_the_parser(text):
    result = without_settings_of_other_heads(text, {"segmentation": LRASPPConfig})
    assert text == "a: [" == result or yaml.safe_load(result) == yaml.safe_load(text)
