"""Lightning's own arguments reach Lightning as what they name."""

import csv
import json

from runs import run_command, write_config

import mbv2det
from mbv2det.cli.settings import SettingsParser


def test_classes_in_trainer_arguments_are_instantiated(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    settings = SettingsParser("").parse(
        [str(config), "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
         "--trainer.callbacks.monitor=val/loss"]
    )  # fmt: skip
    (callback,) = settings.trainer["callbacks"]
    assert type(callback).__name__ == "EarlyStopping"
    assert callback.monitor == "val/loss"
    assert "EarlyStopping" in settings.yaml()


def test_a_resume_file_outside_a_run_is_refused(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    (tmp_path / "last.ckpt").write_bytes(b"garbage")
    done = run_command("train", config, "--resume", tmp_path / "last.ckpt", check=False)
    assert done.returncode == 2
    assert "expected a checkpoint in the folder of its run" in done.stderr
    run = tmp_path / "run/checkpoints"
    run.mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("")
    (run / "last.ckpt").write_bytes(b"garbage")
    done = run_command("train", config, "--resume", run / "last.ckpt", check=False)
    assert done.returncode == 2
    assert "expected a file of tensors" in done.stderr
    assert (tmp_path / "run/config.yaml").read_text() == ""


def test_values_out_of_range_are_refused(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    for argument, expected in (
        ("--data.batch_size=0", "data.batch_size: expected at least 1, got 0"),
        ("--optim.lr=-1", "optim.lr: expected above 0"),
        ("--augment.flip=2", "augment.flip: expected from 0 to 1"),
        ("--eval.nms_iou=1.5", "eval.nms_iou: expected from 0 to 1"),
    ):
        done = run_command("train", config, argument, check=False)
        assert done.returncode == 2
        assert expected in done.stderr


def test_config_must_be_the_first_argument():
    done = run_command("train", "--optim.lr=0.1", "configs/x.yaml", check=False)
    assert done.returncode == 2
    assert "expected CONFIG as the first argument" in done.stderr


def test_a_run_shorter_than_its_validation_period_is_validated_at_its_end(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    run_command("train", config, "--trainer.check_val_every_n_epoch=5")
    assert json.loads((tmp_path / "runs/tiny/1/metrics.json").read_text())["epoch"] == 1


def test_the_last_epoch_is_validated_with_any_period(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    run_command("train", config, "--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3")
    with (tmp_path / "runs/tiny/1/metrics.csv").open() as file:
        validated = {row["epoch"] for row in csv.DictReader(file) if row["val/AP"]}
    assert validated == {"1", "2"}


def test_a_run_that_ends_within_an_epoch_is_validated(tmp_path):
    config = write_config(tmp_path, num_train=8, num_val=2)
    run_command("train", config, "--trainer.max_steps=3", "--trainer.max_epochs=5")
    with (tmp_path / "runs/tiny/1/metrics.csv").open() as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["val/AP"]]
    # Two steps an epoch, and a step is numbered from 0: after the second and after the third.
    assert steps == ["1", "2"]


def test_a_split_without_ground_truth_keeps_the_last_epoch(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    path = tmp_path / "shapes/annotations/instances_val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    run_command("train", config, "--trainer.log_every_n_steps=1")
    run = tmp_path / "runs/tiny/1"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["detection"]["AP"] is None
    assert metrics["epoch"] == 1
    with (run / "metrics.csv").open() as file:
        assert "val/score" not in csv.DictReader(file).fieldnames


def test_a_run_without_validation_saves_its_last_weights(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    done = run_command("train", config, "--trainer.limit_val_batches=0", "--trainer.max_epochs=1")
    assert "(of the last step: there was no validation)" in done.stderr
    run = tmp_path / "runs/tiny/1"
    assert mbv2det.load(run / "best.safetensors").info.metrics == {}
    assert not (run / "metrics.json").exists()
