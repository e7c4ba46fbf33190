"""Configurations are found by path or by name, and a wrong name gets one helpful line."""

import pytest
from runs import ROOT, run_command

from mbv2det.cli.config_files import config_path, shipped_configs, with_config_path
from mbv2det.cli.settings import SettingsParser
from mbv2det.errors import ConfigError

SHIPPED = ROOT / "configs/ssdlite_voc.yaml"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Returns the working folder, outside the repository."""
    monkeypatch.chdir(tmp_path)


def test_every_configuration_is_shipped():
    assert list(shipped_configs()) == sorted(path.stem for path in ROOT.glob("configs/*.yaml"))


@pytest.mark.parametrize("name", ["ssdlite_voc", "ssdlite_voc.yaml"])
def test_a_name_finds_a_shipped_configuration(name):
    assert config_path(name) == SHIPPED


@pytest.mark.parametrize("name", ["ssdlite_voc", "ssdlite_voc.yaml", "mine.yml"])
def test_an_existing_file_takes_precedence(name, tmp_path):
    (tmp_path / name).write_text("seed: 1\n")
    assert config_path(name).resolve() == tmp_path / name


def test_a_folder_of_the_same_name_does_not_hide_a_shipped_configuration(tmp_path):
    (tmp_path / "ssdlite_voc").mkdir()
    assert config_path("ssdlite_voc") == SHIPPED


@pytest.mark.parametrize(
    "argument", ["ssdlite_vok", "configs/ssdlite_voc.yaml", "ssd_lite_voc.yml"]
)
def test_an_unknown_name_is_refused_with_the_nearest_match(argument):
    with pytest.raises(ConfigError) as caught:
        config_path(argument)
    message = str(caught.value)
    assert message.startswith(f"{argument}: expected a configuration file, found none; ")
    assert message.endswith("; did you mean ssdlite_voc?")
    assert all(name in message for name in shipped_configs())


def test_without_a_near_match_none_is_suggested(tmp_path):
    (tmp_path / "zzzzz").mkdir()
    with pytest.raises(ConfigError, match="zzzzz: expected a configuration file, found a folder"):
        config_path("zzzzz")
    with pytest.raises(ConfigError, match=r"ssdlite_voc$"):
        config_path("zzzzz")


def test_the_option_is_replaced_at_any_position():
    assert with_config_path(["--config", "ssdlite_voc", "--seed=1"]) == [
        "--config", str(SHIPPED), "--seed=1",
    ]  # fmt: skip
    assert with_config_path(["--seed=1", "--config=ssdlite_voc"])[1] == f"--config={SHIPPED}"
    assert with_config_path(["--seed", "ssdlite_voc"]) == ["--seed", "ssdlite_voc"]


def test_the_parser_finds_a_configuration_by_name():
    settings = SettingsParser("").parse(["ssdlite_voc", "--seed=7"])
    assert (settings.name, settings.config.seed) == ("ssdlite_voc", 7)
    assert settings.config.data.format == "voc"


def test_an_unknown_configuration_is_one_line():
    done = run_command("train", "ssdlite_vok", check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ssdlite_vok: expected a configuration file, found none")


def test_studies_are_listed():
    lines = run_command("study").stdout.splitlines()
    assert lines[0] == "usage: mbv2det study NAME ..."
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert {"block_cost", "bottlenecks", "model_table", "peer_ssdlite"} <= set(names)
    assert not {"block_measures", "peer", "published"} & set(names)  # modules of the studies


def test_an_unknown_study_is_refused():
    done = run_command("study", "block_costs", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: study: expected one of block_cost, ")
    assert done.stderr.endswith("; did you mean block_cost?\n")
