"""The loggers that `trainer.logger` names: where losses and metrics are written."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.utilities import rank_zero_only

from mbv2det.extras import require
from mbv2det.run_files import CURVES, EARLIER_CURVES

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]
LoggerSetting = LoggerName | Logger | list[LoggerName | Logger] | bool | None

_DEFAULT: list[LoggerName] = ["tensorboard", "csv"]


def make_loggers(setting: Any, folder: Path) -> list[Logger]:
    """Returns the loggers of a run.

    Args:
        setting: Value of `trainer.logger`: a name, a logger of Lightning's, a list of these, False
            for none, True or None for csv and tensorboard.
        folder: Folder of the run.

    Raises:
        ConfigError: If a logger's package is not installed.
    """
    if setting is False:
        return []
    if setting is None or setting is True:
        setting = _DEFAULT
    chosen = setting if isinstance(setting, list | tuple) else [setting]
    return [one if isinstance(one, Logger) else _MAKERS[one](folder) for one in chosen]


def log_settings(loggers: Iterable[Logger], settings: Mapping[str, Any]) -> None:
    """Writes the settings of a run to services that compare runs by them, W&B and MLflow.

    csv and tensorboard get none: their files stand beside the `config.yaml` of the run.

    Args:
        loggers: Loggers of the run.
        settings: Settings of the run, nested as in `config.yaml`.
    """
    for logger in loggers:
        if not isinstance(logger, CSVLogger | TensorBoardLogger):
            logger.log_hyperparams(dict(settings))


def _csv(folder: Path) -> Logger:
    _keep_metrics(folder / CURVES)
    return CSVLogger(folder, name="", version="")


def _tensorboard(folder: Path) -> Logger:
    return TensorBoardLogger(folder, name="", version="")


def _wandb(folder: Path) -> Logger:
    require("wandb", "wandb", "trainer.logger")
    return WandbLogger(project=folder.parent.name, name=folder.name, save_dir=folder)


def _mlflow(folder: Path) -> Logger:
    """Returns a logger to the server of MLFLOW_TRACKING_URI, or to a database in the folder."""
    require("mlflow", "mlflow", "trainer.logger")
    store = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    return MLFlowLogger(
        experiment_name=folder.parent.name,
        run_name=folder.name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", store),
    )


_MAKERS: Mapping[str, Callable[[Path], Logger]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


@rank_zero_only
def _keep_metrics(file: Path) -> None:
    """Renames the metrics.csv of a resumed run, which the logger would overwrite."""
    if file.is_file():
        number = len(list(file.parent.glob(EARLIER_CURVES.format("*")))) + 1
        file.replace(file.with_name(EARLIER_CURVES.format(number)))
