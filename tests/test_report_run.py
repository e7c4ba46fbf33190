"""The commands that write reports, with a small trained model."""

import json
import re

import pytest
from runs import DETECTION, SEGMENTATION, run_command, write_config

import mbv2det.cli.train
from mbv2det.cli.report import split_weights


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    config = write_config(folder, heads=f"{DETECTION}, {SEGMENTATION}", stride=16)
    done = run_command("train", config)
    return config, folder / "runs/tiny/1", done


def content(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def metrics_of(part):
    return {metric["name"]: metric["value"] for metric in part["metrics"]}


def averages(section):
    return {k: v for k, v in section.items() if v is None or isinstance(v, float)}


def test_a_training_ends_with_its_report(joint):
    _, run, done = joint
    assert str(run / "report.html") in done.stderr
    (model,) = content(run / "report.html")["models"]
    measured = json.loads((run / "metrics.json").read_text())
    for task in ("detection", "segmentation"):
        # The same weights and images in the same batches: the same numbers.
        assert metrics_of(model[task]) == averages(measured[task])
    assert "val/loss" in model["curves"]
    assert model["name"] == "tiny/1"
    assert "mbv2det train" in model["facts"]["trained with"]


def test_a_report_has_the_metrics_of_eval_to_the_last_digit(joint, tmp_path):
    config, run, _ = joint
    weights, out = run / "best.safetensors", tmp_path / "r.html"
    run_command("eval", config, "--weights", weights, "--out", tmp_path / "m.json")
    run_command("report", config, "--weights", weights, "--out", out)
    run_command("eval", config, "--weights", weights, "--report", tmp_path / "e.html")
    expected = json.loads((tmp_path / "m.json").read_text())
    for path in (out, tmp_path / "e.html"):
        (model,) = content(path)["models"]
        for task in ("detection", "segmentation"):
            assert metrics_of(model[task]) == averages(expected[task])
            key = {"detection": "ap", "segmentation": "iou"}[task]
            rows = zip(model[task]["classes"], model[task]["per_class"], strict=True)
            assert {name: row[key] for name, row in rows} == expected[task]["per_class"]


def test_the_folder_of_a_run_is_enough(joint, tmp_path):
    _, run, _ = joint
    run_command("report", run, "--out", tmp_path / "r.html")
    assert content(tmp_path / "r.html")["title"].startswith("tiny/1 on")


def test_no_folder_of_this_machine_is_in_a_report(joint):
    config, run, _ = joint
    data = content(run / "report.html")
    assert str(config.parent) not in json.dumps({**data, "images": []})


def test_several_weights_are_side_by_side(joint, tmp_path):
    config, run, _ = joint
    other = tmp_path / "other.safetensors"
    other.write_bytes((run / "best.safetensors").read_bytes())
    arguments = [config, "--weights", run / "best.safetensors", other]
    run_command("report", *arguments, "--out", tmp_path / "r.html")
    data = content(tmp_path / "r.html")
    assert [model["name"] for model in data["models"]] == ["tiny/1", "other"]
    assert not any(row["clear"] for row in data["comparison"]["detection"]["metrics"])
    run_command("report", *arguments, "--seeds", "--out", tmp_path / "s.html")
    seeds = content(tmp_path / "s.html")
    assert seeds["comparison"] == {}
    assert {row["name"] for row in seeds["runs"]["segmentation"]} >= {"mIoU", "pixel_accuracy"}


def test_compare_needs_no_more_than_two_runs(joint, tmp_path):
    _, run, _ = joint
    files = ["--json", tmp_path / "c.json", "--html", tmp_path / "c.html"]
    done = run_command("compare", run, run, *files)
    assert "difference" in done.stdout
    assert "95 % interval" in done.stdout
    compared = json.loads((tmp_path / "c.json").read_text())
    assert (compared["first"], compared["second"]) == ("tiny/1 (1)", "tiny/1 (2)")
    assert all(row["difference"] in (0, None) for row in compared["detection"]["classes"])
    assert len(content(tmp_path / "c.html")["models"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "ssdlite_voc"], "--weights: expected the files of the weights to show"),
        (["report", "ssdlite_voc", "--weights=a.safetensors", "--seeds"], "at least two runs"),
        (["compare", "a.safetensors"], "a.safetensors: expected a file of weights"),
        (["compare"], "expected two files of weights first, got 0"),
    ],
)
def test_what_is_missing_is_named(arguments, message):
    done = run_command(*arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_needs_to_know_the_data(joint, tmp_path):
    _, run, _ = joint
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run / "best.safetensors").read_bytes())
    done = run_command("compare", alone, run, check=False)
    assert done.returncode == 2
    assert "--config: expected the configuration that names the data" in done.stderr


def test_an_error_in_the_report_costs_no_more_than_the_report(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(mbv2det.cli.train, "report_run", fail)
    config = write_config(tmp_path)
    done = run_command("train", config, "--trainer.max_epochs=1")
    run = tmp_path / "runs/tiny/1"
    assert "no report: two lines" in done.stderr
    assert (run / "best.safetensors").is_file()
    assert (run / "metrics.json").is_file()
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [["c", "--weights", "a", "b", "--out", "o"], ["c", "--weights=a", "--out", "o", "--weights=b"]],
)
def test_weights_are_given_together_or_one_by_one(arguments):
    assert split_weights(arguments) == (["c", "--out", "o"], ["a", "b"])
