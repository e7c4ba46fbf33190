"""Another detection method needs its own files, one registration and its configuration."""

import json

import pytest
from runs import run_command, write_config
from toy_method import PointConfig

import mbv2det
from mbv2det.tasks import detection


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(detection, "METHODS", [*detection.METHODS, PointConfig])
    monkeypatch.setattr(detection.DetectionTask, "head_kinds", detection.METHODS)


def test_another_method_trains_evaluates_and_predicts(registered, tmp_path):
    config = write_config(
        tmp_path, num_train=4, num_val=2, heads="detection: {name: points, hidden: 8}"
    )
    done = run_command("train", config, "--trainer.max_epochs=1")
    assert "points: 48 for " in done.stderr  # 96x128 pixels at stride 16
    weights = tmp_path / "runs/tiny/1/best.safetensors"
    run_command("eval", config, "--weights", weights, "--out", tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["detection"]["images"] == 2
    predictor = mbv2det.load(weights)
    assert predictor.info.model.heads["detection"] == PointConfig(hidden=8)
    images = sorted((tmp_path / "shapes/val").iterdir())
    assert len(predictor.predict_file(images[0]).detection) == 48
    run_command("predict", "--weights", weights, images[0], "--out", tmp_path / "out")
    assert len(json.loads((tmp_path / "out/results.json").read_text())) == 48


def test_training_from_its_weights_uses_their_method(registered, tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2, heads="detection: {name: points}")
    run_command("train", config, "--trainer.max_epochs=1")
    weights = tmp_path / "runs/tiny/1/best.safetensors"
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace("name: points", "name: ssdlite"))
    done = run_command("train", other, f"--weights={weights}", "--trainer.max_epochs=1")
    assert "heads.detection.name: points in the weights, ssdlite configured; the weights win" in (
        done.stderr
    )
    info = mbv2det.load(tmp_path / "runs/other/1/best.safetensors").info
    assert info.model.heads["detection"] == PointConfig()


def test_an_unknown_method_is_refused_with_a_list_of_methods(registered, tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2, heads="detection: {name: point}")
    done = run_command("train", config, check=False)
    assert done.returncode == 2
    assert (
        "heads.detection.name: expected one of ssdlite, ssd, gfl_lite, points, got point; "
        "did you mean 'points'?" in done.stderr
    )
