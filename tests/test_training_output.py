"""Loggers, the table of epochs, and the metrics that callbacks watch."""

import re
from importlib.util import find_spec

import pytest
import runs
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.errors import ConfigError
from mbv2det.training.epoch_table import clock
from mbv2det.training.loggers import log_settings, make_loggers
from mbv2det.training.monitors import check_monitors, logged_names

BOTH = f"{runs.DETECTION}, {runs.SEGMENTATION}"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(
        tmp_path_factory.mktemp("run"), num_train=8, num_val=2, heads=BOTH, stride=16
    )


@pytest.fixture(scope="module")
def module(config):
    return RunParts.read(SettingsParser("").parse([str(config)])).module()


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory):
    """A run that stops early: a rate this small never improves the loss by 9."""
    root = tmp_path_factory.mktemp("stopped")
    done = runs.run_command(
        "train", config, f"--trainer.default_root_dir={root}", "--trainer.logger=csv",
        "--trainer.max_epochs=6", "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=1",
        "--trainer.callbacks.min_delta=9",
    )  # fmt: skip
    return root / "tiny/1", done


def test_early_stopping_ends_a_run_and_its_last_state_is_validated(stopped):
    run, done = stopped
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"\s+\d+ ", line)]
    # The first validation sets the mark, the second does not improve it.
    assert [row[0] for row in rows] == ["0", "1"]
    assert (run / "best.safetensors").is_file()


def test_every_epoch_has_a_row_below_the_header(stopped):
    lines = [line for line in stopped[1].stdout.splitlines() if "images/s" in line]
    (header,) = lines
    assert header.split() == [
        "epoch", "boxes_loss", "classes_loss", "pixels_loss", "loss", "val", "loss", "AP", "AP50",
        "mIoU", "time", "images/s", "left",
    ]  # fmt: skip
    rows = [x.split() for x in stopped[1].stdout.splitlines() if re.match(r"\s+\d+ ", x)]
    assert all(len(row) == 12 for row in rows)  # "val loss" is one column
    for row in rows:
        assert float(row[4]) == pytest.approx(sum(float(v) for v in row[1:4]), abs=2e-4)
        assert float(row[10]) > 0
        assert re.fullmatch(r"(\d+:)?\d+:\d\d", row[11])


def test_only_the_named_logger_writes(stopped):
    assert (stopped[0] / "metrics.csv").is_file()
    assert not list(stopped[0].glob("events.out*"))


def test_durations_are_readable():
    assert [clock(s) for s in (0, 59.6, 123, 3723)] == ["0:00", "1:00", "2:03", "1:02:03"]


@pytest.mark.parametrize(
    ("setting", "kinds"),
    [
        (None, [TensorBoardLogger, CSVLogger]), (True, [TensorBoardLogger, CSVLogger]),
        (False, []), ("csv", [CSVLogger]), (["tensorboard"], [TensorBoardLogger]),
    ],
)  # fmt: skip
def test_loggers_are_those_that_the_setting_names(tmp_path, setting, kinds):
    assert [type(one) for one in make_loggers(setting, tmp_path)] == kinds


def test_a_logger_of_ones_own_is_kept(tmp_path):
    own = CSVLogger(tmp_path)
    assert make_loggers(own, tmp_path) == [own]
    assert make_loggers(["csv", own], tmp_path)[1] is own


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line_with_its_command(tmp_path, name):
    if find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ConfigError) as raised:
        make_loggers(name, tmp_path)
    assert str(raised.value) == (
        f"trainer.logger: expected the package {name}, found none; "
        f"install it with: pip install 'mbv2det[{name}]'"
    )


@pytest.mark.filterwarnings("ignore")  # of mlflow's own
def test_mlflow_stores_what_is_logged(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "ssdlite_voc/3"
    folder.mkdir(parents=True)
    (logger,) = make_loggers("mlflow", folder)
    logger.log_metrics({"val/AP": 0.5}, step=7)
    log_settings([logger], {"seed": 3, "data": {"batch_size": 8}})
    logger.finalize("success")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ssdlite_voc")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "3"
    (point,) = client.get_metric_history(run.info.run_id, "val/AP")
    assert (point.value, point.step) == (0.5, 7)
    assert run.data.params == {"seed": "3", "data/batch_size": "8"}


def test_settings_go_to_loggers_whose_files_do_not_stand_beside_them(tmp_path):
    class Service(DummyLogger):
        def log_hyperparams(self, *arguments, **_):
            self.settings = arguments

    service = Service()
    log_settings([*make_loggers(["csv", "tensorboard"], tmp_path), service], {"seed": 3})
    assert service.settings == ({"seed": 3},)
    assert not list(tmp_path.rglob("hparams.yaml"))


def test_all_logged_names_can_be_watched(module):
    names = logged_names(module)
    assert {"val/AP", "val/AP50", "val/mIoU", "val/score", "val/loss", "val/boxes_loss",
            "train/loss", "train/pixels_loss"} <= set(names)  # fmt: skip
    for name in names:
        best = "min" if name.endswith("loss") else "max"
        check_monitors([EarlyStopping(name, mode=best)], module)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping("val/ap", mode="max"), "EarlyStopping.monitor: expected one of "),
        (EarlyStopping("val/ap", mode="max"), "got val/ap; did you mean val/AP?"),
        (ModelCheckpoint(monitor="AP50"), "ModelCheckpoint.monitor: expected one of"),
        (EarlyStopping("val/AP"), "EarlyStopping.mode: expected max for val/AP, got min"),
        (EarlyStopping("val/loss", mode="max"), "expected min for val/loss, got max"),
    ],
)
def test_a_wrong_monitor_is_refused_before_the_training(module, callback, message):
    with pytest.raises(ConfigError) as raised:
        check_monitors([callback], module)
    assert str(raised.value).startswith("trainer.callbacks: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_callbacks_without_a_monitor_are_accepted(module):
    check_monitors([ModelCheckpoint()], module)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/AP"],
         "trainer.callbacks: EarlyStopping.mode: expected max for val/AP, got min"),
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/AP",
          "--trainer.callbacks.mode=up"], "trainer: `mode` can be min, max, got up"),
        (["--trainer.overfit_batches=1"], "trainer.overfit_batches: expected 0"),
    ],
)  # fmt: skip
def test_what_lightning_would_refuse_later_is_one_line(config, tmp_path, arguments, message):
    root = f"--trainer.default_root_dir={tmp_path}"
    done = runs.run_command("train", config, root, *arguments, check=False)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if "error: " in x]
    assert message in line
    assert not list(tmp_path.glob("*/*"))
