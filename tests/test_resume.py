"""Resumed runs: what may change takes effect and is said, the rest is refused untouched."""

import shutil

import pytest
import runs
import torch
import yaml

CONSTANT = "--optim.schedule=constant"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was cut after its first of two epochs, with its configuration."""
    folder = tmp_path_factory.mktemp("run")
    config = runs.write_config(folder)
    runs.run_command("train", config, "--trainer.max_steps=2", CONSTANT)
    return folder, config


@pytest.fixture
def run(interrupted, tmp_path):
    """A copy of the run that may be changed; returns (folder of runs, configuration)."""
    shutil.copytree(interrupted[0] / "runs", tmp_path / "runs")
    return tmp_path / "runs", interrupted[1]


def resume(run, *arguments, check=True):
    root, config = run
    moved = f"--trainer.default_root_dir={root}"
    return runs.run_command(
        "train", config, "--resume=last", moved, CONSTANT, *arguments, check=check
    )


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_another_learning_rate_takes_effect_and_is_said(run):
    done = resume(run, "--optim.lr=0.0007", "--optim.weight_decay=0.5")
    assert "resume: optim.lr is now 0.0007; it was 0.002" in done.stderr
    saved = torch.load(run[0] / "tiny/1/checkpoints/last.ckpt", weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert {group["lr"] for group in groups} == {0.0007}
    assert 0.5 in {group["weight_decay"] for group in groups}
    assert saved["lr_schedulers"][0]["base_lrs"] == [0.0007] * len(groups)
    written = yaml.safe_load((run[0] / "tiny/1/config.yaml").read_text())
    assert written["optim"]["lr"] == 0.0007


def test_unchanged_settings_are_not_mentioned(run):
    lines = [x for x in resume(run).stderr.splitlines() if x.startswith("resume: ")]
    # The tests run it elsewhere, and for another number of steps.
    assert {line.split()[1] for line in lines} <= {"trainer.default_root_dir", "trainer.max_steps"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--optim.name=sgd", "--resume: optim.name: expected adamw"),
        ("--backbone.width_mult=0.5", "--resume: "),
        ("--data.resize=fit", "--resume: "),
        ("--heads.detection.loss_weight=2", "--resume: "),
        ("--data.classes=[star,ring]", "--resume: "),
        ("--data.batch_size=50", "data.batch_size: expected at most"),
        ("--trainer.strategy=none_such", "trainer: "),
        ("--trainer.val_check_interval=1000", "trainer: `val_check_interval` (1000) must be"),
    ],
)
def test_refused_resume_leaves_the_run_as_it_was(run, change, message):
    before = contents(run[0])
    done = resume(run, change, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "error: " in x]
    assert message in line
    assert contents(run[0]) == before


def test_refused_new_run_leaves_no_folder(tmp_path):
    config = runs.write_config(tmp_path)
    done = runs.run_command("train", config, "--data.batch_size=50", check=False)
    assert done.returncode == 2
    assert not list((tmp_path / "runs").glob("*/*"))
