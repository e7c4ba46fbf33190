import csv

import pytest
import runs
import torch
from safetensors.torch import load_file

from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.errors import ConfigError
from mbv2det.training.compilation import compile_errors

COMPILED = "--trainer.compile=true"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(tmp_path_factory.mktemp("compiled"))


def test_the_compiled_network_is_called_and_no_name_changes(config, monkeypatch):
    calls = []

    def compiled(network):
        return lambda images: calls.append(images) or network(images)

    monkeypatch.setattr(torch, "compile", compiled)
    module = RunParts.read(SettingsParser("").parse([str(config)])).module().eval()
    names, images = list(module.state_dict()), torch.zeros(1, 3, 96, 128, dtype=torch.uint8)
    module.compile_network()
    module(images)
    assert calls == [images]
    assert list(module.state_dict()) == names
    module.evaluation_model(module.model)(images)
    assert len(calls) == 1


def first_loss(run):
    with (run / "metrics.csv").open() as file:
        return next(float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"])


@pytest.mark.slow
def test_a_compiled_run_equals_another_and_resumes_without(config):
    """In processes of their own: here the compiler would trace the checks of types, too."""
    train = ("train", config, "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1")
    runs.run_tool(*train)
    runs.run_tool(*train, COMPILED)
    plain, compiled = (config.parent / f"runs/tiny/{number}" for number in (1, 2))
    assert first_loss(compiled) == pytest.approx(first_loss(plain), rel=1e-4)
    states = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (plain, compiled)
    ]
    assert list(states[0]) == list(states[1])
    names = [list(load_file(run / "best.safetensors")) for run in (plain, compiled)]
    assert names[0] == names[1]
    runs.run_tool("train", config, "--trainer.max_epochs=2", "--resume=last")
    assert not (config.parent / "runs/tiny/3").exists()


def test_a_missing_compiler_is_one_line_and_leaves_no_folder(config, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    out = config.parent / "none"
    done = runs.run_command(
        "train", config, COMPILED, f"--trainer.default_root_dir={out}", check=False
    )
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert "trainer.compile: expected a C++ compiler" in lines[-1]
    assert "found no no-such-compiler" in lines[-1]
    assert not out.exists()


def test_a_failure_of_the_compiler_is_one_line():
    def broken(graph, inputs):
        raise OSError("no\nPython.h")

    function = torch.compile(torch.sin, backend=broken)
    message = r"^trainer\.compile: .*no Python\.h.*=false$"
    with pytest.raises(ConfigError, match=message) as raised, compile_errors():
        function(torch.zeros(1))
    assert "\n" not in str(raised.value)


def test_the_setting_is_off_by_default_and_checked(config):
    done = runs.run_command("train", config, "--trainer.compile=maybe", check=False)
    assert done.returncode == 2
    assert "trainer.compile: expected true or false, got" in done.stderr
