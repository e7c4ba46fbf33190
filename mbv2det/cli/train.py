"""`train CONFIG`: trains a model, saves the best weights and draws their predictions."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch

from mbv2det.build import build, evaluation_model, label_maps_of, trainable
from mbv2det.cli.command_line import command_line
from mbv2det.cli.huge_pages import uses_huge_pages
from mbv2det.cli.reporting import report_run
from mbv2det.cli.resume import check_resumed, check_settings, resume_line
from mbv2det.cli.run_outputs import run_loggers, training_callbacks
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.cli.splits import read_splits
from mbv2det.cli.tables import print_metrics
from mbv2det.config import Config, DataConfig, OptimConfig
from mbv2det.console import log, one_line_errors
from mbv2det.counting import count_parameters
from mbv2det.data.annotations import Annotations
from mbv2det.data.augment import Augment
from mbv2det.data.datamodule import DenseData
from mbv2det.data.statistics import measure_value_range
from mbv2det.deploy.load import load
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.deploy.pictures import write_comparisons
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.preprocess import Preprocessor
from mbv2det.tasks.task import TrainableTask
from mbv2det.training.checkpoints import LAST
from mbv2det.training.initial_weights import InitialWeights, initial_weights
from mbv2det.training.module import DenseModule
from mbv2det.training.refusal import unchanged_if_refused
from mbv2det.training.run_folder import new_run, resumed_run
from mbv2det.training.trainer import (
    default_precision,
    lightning_errors,
    make_trainer,
    num_loader_workers,
)
from mbv2det.weights.header import WeightsInfo, encode_info
from mbv2det.weights.share_file import load_origin
from mbv2det.weights.transfer import Transfer

_LOG_STEPS = 10
_DESCRIPTION = "Trains the model of a configuration and saves the best weights."


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, full_help=True, prog=prog)
    parser.add_option("--resume", help="`last`, or a checkpoint file: continue that run")
    settings = parser.parse(sys.argv[1:] if arguments is None else arguments)
    log_memory_settings()
    train(settings)


def log_memory_settings() -> None:
    """Makes the process keep freed memory, which a step on a CPU is faster with, and says so."""
    if keep_freed_memory():
        pages = ", on huge pages" if uses_huge_pages() else ""
        log(f"memory: freed memory stays in the process{pages}")


def train(settings: Settings) -> Path:
    """Trains as configured.

    Returns:
        The folder of the run.
    """
    config = settings.config
    pl.seed_everything(config.seed, workers=True, verbose=False)
    splits = read_splits(config)
    resumed = resumed_run_of(settings)
    checkpoint = resumed[1] if resumed else None
    initial = initial_weights(config, settings.overrides, checkpoint)
    initial = with_value_range(initial, config.data, splits[0])
    value_range = initial.preprocess.value_range
    training, validation = (replace(split, value_range=value_range) for split in splits)
    splits = (training, validation)
    info = weights_info(settings, initial, splits[0], checkpoint)
    model, tasks = build(info)
    transfer = load_initial(initial, model, info.label_maps, config.optim, checkpoint)
    module = training_module(model, trainable(tasks), config, info, splits, transfer)
    data = data_module(config, info, *splits)
    log_data_statistics(module, splits[0], data)
    precision = default_precision(settings.trainer["accelerator"])
    dumped = settings.yaml(initial.resolution, info.model.heads, precision=precision)
    if resumed:
        check_settings(resumed[0] / "config.yaml", dumped)
    folder = resumed[0] if resumed else new_run(runs_root(settings), settings.name)
    log(f"model: {count_parameters(model):,} parameters; run folder: {folder}")
    with unchanged_if_refused(folder) as started:
        trainer = make_trainer(
            settings.trainer,
            [started, *training_callbacks(settings, folder, info, *splits, tasks=module.tasks)],
            precision=precision,
            logger=run_loggers(folder) if settings.trainer["logger"] is None else None,
            log_every_n_steps=_LOG_STEPS,
            enable_model_summary=False,
            default_root_dir=str(folder),
        )
        if trainer.is_global_zero:
            (folder / "config.yaml").write_text(dumped)
        with lightning_errors(), resume_line(settings, folder):
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        conclude(folder, splits[1])
        log_report(settings, folder, splits[1], alone=trainer.world_size == 1)
    return folder


def with_value_range(
    initial: InitialWeights, data: DataConfig, training: Annotations
) -> InitialWeights:
    """Returns the weights with the value range of the images; logs it if an image needs one."""
    measured = measure_value_range(training)
    configured = measured if data.value_range == "auto" else data.value_range
    value_range = initial.preprocess.value_range or configured
    if measured is not None and value_range is not None:
        log(
            "train: images of more than 8 bits; their values "
            f"{value_range[0]:g}..{value_range[1]:g} become 0..255 (data.value_range)"
        )
    return replace(initial, preprocess=replace(initial.preprocess, value_range=value_range))


def weights_info(
    settings: Settings, initial: InitialWeights, training: Annotations, checkpoint: Path | None
) -> WeightsInfo:
    """Returns the header of the weights that the run writes; logs resolved settings.

    Raises:
        ConfigError: If the checkpoint to resume from is of another model.
    """
    for difference in initial.resolution.differences:
        log(str(difference))
    info = WeightsInfo(
        initial.model,
        initial.preprocess,
        label_maps_of(training, settings.config.tasks),
        settings.config.eval.thresholds(),
        command=command_line("train", settings.arguments),
    )
    if checkpoint is None:
        return info
    return replace(info, command=check_resumed(checkpoint, info).command)


def load_initial(
    initial: InitialWeights,
    model: MultiTaskModel,
    label_maps: Mapping[str, LabelMap],
    optim: OptimConfig,
    checkpoint: Path | None,
) -> Transfer:
    """Loads the weights that the training starts from, and logs what was loaded."""
    if checkpoint is not None:  # its tensors are loaded by the trainer
        return Transfer([], *load_origin(checkpoint))
    transfer = initial.load_into(model, label_maps)
    for line in transfer.lines:
        log(line)
    if transfer.transferred:
        log(
            f"  transferred tensors learn at {optim.pretrained_lr_mult} of optim.lr "
            "(optim.pretrained_lr_mult)"
        )
    return transfer


def training_module(
    model: MultiTaskModel,
    tasks: Sequence[TrainableTask],
    config: Config,
    info: WeightsInfo,
    splits: tuple[Annotations, Annotations],
    transfer: Transfer,
) -> DenseModule:
    """Builds the Lightning module of a training run."""
    training, validation = splits
    return DenseModule(
        model,
        tasks,
        config.optim,
        metrics={task.name: task.metric(validation, config.eval) for task in tasks},
        image_names=training.image_ids.tolist(),
        evaluation_model=partial(evaluation_model, tasks=tasks, thresholds=info.eval),
        header=encode_info(info),
        seed=config.seed,
        loaded=transfer.loaded,
        transferred=transfer.transferred,
    )


def data_module(
    config: Config, info: WeightsInfo, training: Annotations, validation: Annotations
) -> DenseData:
    """Builds the data module of a training run."""
    preprocessor = Preprocessor(info.preprocess)
    return DenseData(
        training,
        validation,
        preprocessor,
        Augment(config.augment, preprocessor, config.seed),
        batch_size=config.data.batch_size,
        num_workers=num_loader_workers(config.data),
        seed=config.seed,
        on_error=config.data.on_error,
    )


@torch.no_grad()
def log_data_statistics(module: DenseModule, training: Annotations, data: DenseData) -> None:
    """Logs one line per task about the training split.

    Raises:
        DataError: If a mask cannot be used, unless such files are skipped.
    """
    height, width = data.preprocessor.spec.size
    module.eval()
    outputs = module(torch.zeros(1, 3, height, width, dtype=torch.uint8))
    module.train()
    for task in module.tasks:
        try:
            log(task.describe_data(outputs[task.name], training, data.preprocessor))
        except DataError as error:
            if data.on_error == "stop":
                raise
            log(f"warning: {error}")


def runs_root(settings: Settings) -> Path:
    """Returns the folder of all runs."""
    return Path(settings.trainer["default_root_dir"] or "runs")


def resumed_run_of(settings: Settings) -> tuple[Path, Path] | None:
    """Returns folder and checkpoint of the run to continue; None for a new run."""
    if not settings.options.resume:
        return None
    return resumed_run(runs_root(settings), settings.name, settings.options.resume)


def conclude(folder: Path, validation: Annotations) -> None:
    """Prints the metrics of the best weights, draws predictions and logs the paths of all files."""
    best = folder / "best.safetensors"
    predictor = load(best)
    metrics = predictor.info.metrics
    write_comparisons(predictor, validation, folder / "pictures")
    if metrics:
        print_metrics(metrics)
        log(f"weights:     {best} (epoch {metrics['epoch']})")
        log(f"metrics:     {folder / 'metrics.json'}")
    else:
        log(f"weights:     {best} (of the last step: there was no validation)")
    log(f"pictures:    {folder / 'pictures'} (annotation left, prediction right)")
    if (folder / "metrics.csv").is_file():
        log(f"curves:      {folder / 'metrics.csv'}, or tensorboard --logdir {folder}")
    if (folder / "checkpoints" / LAST).is_file():
        log(f"resume from: {folder / 'checkpoints' / LAST}")


def log_report(settings: Settings, folder: Path, validation: Annotations, *, alone: bool) -> None:
    """Writes the report of a run and logs its path; what goes wrong costs no more than the report.

    Args:
        settings: Settings of the training.
        folder: Folder of the run.
        validation: Validation split.
        alone: Whether this is the only process of the run; otherwise the command is named instead.
    """
    if not (folder / "metrics.json").is_file():
        return
    if not alone:
        log(f"report:      run mbv2det report {folder} --trainer.devices=1 --out FILE.html")
        return
    try:
        report_run(settings, folder, validation)
    except Exception as error:
        log(f"no report: {' '.join(str(error).split()) or type(error).__name__}")
