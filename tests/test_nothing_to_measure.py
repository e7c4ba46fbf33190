"""Splits from which nothing can be learned, and splits on which nothing can be measured."""

import csv
import json
from unittest.mock import MagicMock

import pytest
import runs
from lightning.pytorch import Trainer

from mbv2det.training.callbacks import BestWeights
from mbv2det.training.module import DenseModule
from mbv2det.weights.share_file import load_weights

DETECTION, SEGMENTATION = runs.DETECTION, runs.SEGMENTATION


def rewrite(file, change):
    content = json.loads(file.read_text())
    content["annotations"] = change(content["annotations"])
    file.write_text(json.dumps(content))


def crowded(objects):
    return [o | {"iscrowd": 1} for o in objects]


def flat(objects):
    return [o | {"bbox": [*o["bbox"][:3], 0]} for o in objects]


def nothing(objects):
    return []


@pytest.fixture
def config(tmp_path):
    return runs.write_config(tmp_path)


@pytest.mark.parametrize(
    ("heads", "change", "reason"),
    [
        (DETECTION, nothing, "learn detection from; it has no objects"),
        (DETECTION, crowded, "objects are crowds, which detectors need not find: set iscrowd to 0"),
        (DETECTION, flat, "objects are crowds, difficult, or without an area"),
        (SEGMENTATION, nothing, "learn segmentation from; it has no objects"),
        (SEGMENTATION, crowded, "outlines are crowds, which masks ignore: set iscrowd to 0"),
    ],
)
def test_nothing_to_learn_is_refused(tmp_path, heads, change, reason):
    config = runs.write_config(tmp_path, heads=heads, stride=32)
    rewrite(tmp_path / "shapes/annotations/instances_train.json", change)
    done = runs.run_command("train", config, check=False)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert reason in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", [nothing, crowded])
def test_last_epoch_is_kept_where_nothing_can_be_measured(tmp_path, config, change):
    rewrite(tmp_path / "shapes/annotations/instances_val.json", change)
    done = runs.run_command(
        "train", config, "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1"
    )
    assert "warning: detection cannot be measured on" in done.stderr
    assert "those of the last epoch are kept" in done.stderr
    folder = tmp_path / "runs/tiny/1"
    assert json.loads((folder / "metrics.json").read_text())["epoch"] == 2
    _, info = load_weights(folder / "best.safetensors")
    assert info.metrics["epoch"] == 2
    assert info.metrics["detection"]["AP"] is None
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    # Undefined numbers have no value: 0 would be the best loss and the worst score for ever.
    assert not [key for key in rows[0] if key in ("val/AP", "val/score")]
    assert all(row.get("val/loss", "") == "" for row in rows)


def test_split_without_objects_is_evaluated_and_said(tmp_path, config):
    runs.run_command("train", config)
    rewrite(tmp_path / "shapes/annotations/instances_val.json", nothing)
    weights = tmp_path / "runs/tiny/1/best.safetensors"
    done = runs.run_command("eval", config, "--weights", weights)
    assert "warning: detection cannot be measured on" in done.stderr


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([None, None, None], 2),
        ([0.0, 0.0], 0),
        ([None, 0.0, None], 1),
        ([None, 0.2, 0.1], 1),
        ([0.3, None, 0.4], 2),
        ([0.3, None, 0.2], 0),
    ],
)
def test_epoch_whose_weights_are_kept(tmp_path, monkeypatch, scores, kept):
    written, current = [], {}
    monkeypatch.setattr(
        "mbv2det.training.callbacks.mean_monitor", lambda tasks, results: current["score"]
    )
    best = BestWeights(tmp_path, lambda *saved: written.append(saved[2].get("epoch")), None)
    module = MagicMock(DenseModule, model=None, tasks=(), results={"detection": {"images": 1}})
    for epoch, score in enumerate(scores):
        current["score"] = score
        trainer = MagicMock(Trainer, sanity_checking=False, is_global_zero=True)
        trainer.current_epoch = epoch
        best.on_validation_end(trainer, module)
        resumed = BestWeights(tmp_path, best.save, None)
        resumed.load_state_dict(best.state_dict())
        best = resumed
    best.on_train_end(trainer, module)
    assert written[-1] == kept


def voc_folder(root, make_voc, val_objects):
    voc = {"a": make_voc.object(), "b": make_voc.object(name="cat"), "c": val_objects}
    make_voc(root, voc)
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        path = root / f"ImageSets/Main/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(names)


@pytest.mark.parametrize("classes", ["auto", "[cat,dog]"])
def test_voc_has_the_same_rule(tmp_path, make_voc, classes):
    voc_folder(tmp_path / "voc", make_voc, "")
    config = runs.write_config(tmp_path)
    lines = config.read_text().splitlines()
    config.write_text("\n".join(x for x in lines if "annotations/instances" not in x))
    done = runs.run_command(
        "train",
        config,
        f"--data.root={tmp_path}/voc",
        "--data.format=voc",
        "--data.train.split=train",
        "--data.val.split=val",
        "--data.batch_size=2",
        f"--data.classes={classes}",
    )
    assert "those of the last epoch are kept" in done.stderr
    assert json.loads((tmp_path / "runs/tiny/1/metrics.json").read_text())["epoch"] == 1
