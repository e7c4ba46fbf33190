"""`train CONFIG`: trains, keeps the best weights, shows what they find."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch import nn

from mbv2det.build import (
    build_model,
    build_tasks,
    labels_of,
    read_split,
    seen_by,
    with_labels,
)
from mbv2det.cli.report import print_results, truth_beside, write_pictures
from mbv2det.cli.session import (
    ConfigParser,
    Settings,
    default_precision,
    loader_workers,
    make_trainer,
    one_line_errors,
    say,
    say_split,
)
from mbv2det.cli.start import Start, starting_point
from mbv2det.config import Config, OptimConfig
from mbv2det.counting import count_parameters
from mbv2det.data.annotations import Annotations
from mbv2det.data.augment import Augment
from mbv2det.data.datamodule import DenseData
from mbv2det.data.dataset import read_sample
from mbv2det.deploy.predictor import load
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import SampleKey
from mbv2det.training.callbacks import (
    Ema,
    FaultReport,
    PredictionPictures,
    ShareBest,
    ValidationLine,
)
from mbv2det.training.module import DenseModule
from mbv2det.training.runs import new_run, resumed_run
from mbv2det.weights.share_file import (
    WeightsInfo,
    encode_info,
    load_origin,
    load_weights,
    save_weights,
)
from mbv2det.weights.transfer import Transfer

_LOG_STEPS = 10
# Alone, as a value, or within a list or a mapping.
_ABSOLUTE = re.compile(r"""(?<![^\s=\[{(,'"])/[^,\]})'"]*""")
_DESCRIPTION = "Trains the model of a configuration and keeps the best weights."


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = ConfigParser(_DESCRIPTION)
    parser.add_option("--resume", help="`last`, or a checkpoint file: continue that run")
    settings = parser.parse(sys.argv[1:])
    train(settings)


def train(settings: Settings) -> Path:
    """Trains as configured.

    Returns:
        The run's folder.
    """
    config = settings.config
    pl.seed_everything(config.seed, workers=True, verbose=False)
    training, validation = read_splits(config)
    labels = labels_of(training)
    resumed = resumed_run_of(settings)
    checkpoint = resumed[1] if resumed else None
    start = starting_point(settings, checkpoint)
    info = WeightsInfo(
        start.model, start.preprocess, labels, config.eval, command=command_line(sys.argv[1:])
    )
    if checkpoint is not None:
        info = replace(info, command=check_resumed(checkpoint, info).command)
    model = build_model(info.model, info.preprocess, info.label_maps)
    if checkpoint is None:
        filled = begin(start, model, labels, config.optim)
    else:
        filled = Transfer([], *load_origin(checkpoint))
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    module = DenseModule(
        model,
        tasks,
        config.optim,
        metrics={task.name: task.metric(validation) for task in tasks},
        image_names=training.image_ids.tolist(),
        seen_by=partial(seen_by, thresholds=info.eval, tasks=config.heads.tasks),
        header=encode_info(info),
        seed=config.seed,
        loaded=filled.loaded,
        kept=filled.transferred,
    )
    preprocessor = Preprocessor(info.preprocess)
    data = DenseData(
        training,
        validation,
        preprocessor,
        Augment(config.augment, preprocessor, config.seed),
        batch_size=config.data.batch_size,
        num_workers=loader_workers(config.data),
        seed=config.seed,
    )
    for line in previews(module, training, preprocessor):
        say(line)
    folder = resumed[0] if resumed else new_run(runs_root(settings), settings.name)
    say(f"model: {count_parameters(model):,} parameters; run folder: {folder}")
    precision = default_precision(settings.trainer["accelerator"])
    trainer = make_trainer(
        settings,
        training_callbacks(settings, folder, info, training, validation),
        precision=precision,
        logger=_loggers(folder) if settings.trainer["logger"] is None else None,
        log_every_n_steps=_LOG_STEPS,
        enable_model_summary=False,
        default_root_dir=str(folder),
    )
    if trainer.is_global_zero:
        (folder / "config.yaml").write_text(settings.yaml(start.winners, precision=precision))
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        conclude(folder, validation)
    return folder


def begin(
    start: Start, model: DensePredictor, labels: Mapping[str, LabelMap], optim: OptimConfig
) -> Transfer:
    """Loads what the training starts from, and says so."""
    filled = start.fill(model, labels)
    for line in filled.lines:
        say(line)
    if filled.transferred:
        say(f"  tensors kept learn at {optim.kept_lr_mult} of optim.lr (optim.kept_lr_mult)")
    return filled


def command_line(arguments: Sequence[str]) -> str:
    """The command that is running, for whoever gets its weights.

    Of absolute paths the last name alone: a share file tells nobody where its maker kept things.
    """
    shown = [_ABSOLUTE.sub(lambda path: Path(path[0]).name, a) for a in arguments]
    return f"python tools/train.py {shlex.join(shown)}"


def read_splits(config: Config) -> tuple[Annotations, Annotations]:
    """Training and validation split with the same classes, their faults reported."""
    tasks = config.heads.tasks
    training = read_split(config.data, config.data.train, "data.train", tasks)
    validation = read_split(config.data, config.data.val, "data.val", tasks)
    validation = with_labels(validation, labels_of(training))
    say_split("train", training)
    say_split("val", validation)
    both = np.intersect1d(training.files, validation.files)
    if len(both):
        say(
            f"warning: {len(both)} of the {len(validation)} validation images are trained on too, "
            f"{both[0]} first: their metrics tell little about other images"
        )
    return training, validation


@torch.no_grad()
def previews(module: DenseModule, training: Annotations, preprocessor: Preprocessor) -> list[str]:
    """A line of each task about the training split."""
    height, width = preprocessor.spec.size
    module.eval()
    outputs = module(torch.zeros(1, 3, height, width, dtype=torch.uint8))
    module.train()
    return [task.preview(outputs[task.name], training, preprocessor) for task in module.tasks]


def runs_root(settings: Settings) -> Path:
    """Folder of all runs."""
    return Path(settings.trainer["default_root_dir"] or "runs")


def resumed_run_of(settings: Settings) -> tuple[Path, Path] | None:
    """Folder and checkpoint of the run that is continued, if one is."""
    if not settings.options.resume:
        return None
    return resumed_run(runs_root(settings), settings.name, settings.options.resume)


def check_resumed(checkpoint: Path, info: WeightsInfo) -> WeightsInfo:
    """What the checkpoint of a run says, which must be of the same network.

    Raises:
        ConfigError: If the checkpoint is no whole file of such a model.
    """
    _, stored = load_weights(checkpoint)
    for part, other in (
        ("model", "another network"),
        ("preprocess", "other preprocessing"),
        ("label_maps", "other classes"),
    ):
        if getattr(stored, part) != getattr(info, part):
            raise ConfigError(f"--resume: {checkpoint} was trained with {other}")
    return stored


def training_callbacks(
    settings: Settings,
    folder: Path,
    info: WeightsInfo,
    training: Annotations,
    validation: Annotations,
) -> list[Callback]:
    """Averaging, saving, pictures and reports."""
    decay = settings.config.optim.ema_decay
    ema = Ema(decay) if decay else None
    callbacks: list[Callback] = [
        *([ema] if ema else []),
        ShareBest(folder, partial(_save, info), ema),
        ValidationLine(),
        PredictionPictures(validation, partial(_picture, validation, info)),
        FaultReport({"train": training, "val": validation}),
    ]
    if settings.trainer["logger"] is not False:
        callbacks.append(LearningRateMonitor("step"))
    if settings.trainer["enable_checkpointing"] is not False:
        callbacks += _checkpoints(folder / "checkpoints")
    return callbacks


def _loggers(folder: Path) -> list[Logger]:
    """TensorBoard's events and metrics.csv."""
    _keep_rows(folder / "metrics.csv")
    return [
        TensorBoardLogger(folder, name="", version=""),
        CSVLogger(folder, name="", version=""),
    ]


@rank_zero_only
def _keep_rows(rows: Path) -> None:
    """Puts the rows of a run that is resumed aside: the logger starts its file anew."""
    if rows.is_file():
        number = len(list(rows.parent.glob("metrics.before_resume_*.csv"))) + 1
        rows.replace(rows.with_name(f"metrics.before_resume_{number}.csv"))


def _checkpoints(folder: Path) -> list[Callback]:
    """`last.ckpt` after every epoch, `best.ckpt` by the validation score."""
    return [
        ModelCheckpoint(
            folder,
            "last",
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        ModelCheckpoint(
            folder, "best", monitor="val/score", mode="max", enable_version_counter=False
        ),
    ]


def _save(info: WeightsInfo, path: Path, model: nn.Module, metrics: dict[str, Any]) -> None:
    save_weights(path, model.state_dict(), replace(info, metrics=metrics))


def _picture(
    annotations: Annotations, info: WeightsInfo, index: int, found: Mapping[str, Any]
) -> Image.Image:
    return truth_beside(read_sample(annotations, SampleKey(0, index)), found, info.label_maps)


def conclude(folder: Path, validation: Annotations) -> None:
    """Shows the best weights' metrics and pictures, and where everything is."""
    best = folder / "best.safetensors"
    predictor = load(best)
    metrics = predictor.info.metrics
    write_pictures(predictor, validation, folder / "pictures")
    if metrics:
        print_results(metrics)
        say(f"weights:     {best} (epoch {metrics['epoch']})")
        say(f"metrics:     {folder / 'metrics.json'}")
    else:
        say(f"weights:     {best} (the last ones: no validation took place)")
    say(f"pictures:    {folder / 'pictures'} (annotation left, prediction right)")
    if (folder / "metrics.csv").is_file():
        say(f"curves:      {folder / 'metrics.csv'}, or tensorboard --logdir {folder}")
    if (folder / "checkpoints/last.ckpt").is_file():
        say(f"resume from: {folder / 'checkpoints/last.ckpt'}")
