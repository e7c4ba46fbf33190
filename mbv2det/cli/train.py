"""`train CONFIG`: trains a model, saves the best weights and draws their predictions."""

import sys
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
import yaml

from mbv2det.cli.huge_pages import uses_huge_pages
from mbv2det.cli.reporting import report_run
from mbv2det.cli.resume import check_settings, resume_line
from mbv2det.cli.run_outputs import training_callbacks
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.cli.tables import print_metrics
from mbv2det.console import log, one_line_errors
from mbv2det.counting import count_parameters
from mbv2det.data.annotations import Annotations
from mbv2det.data.datamodule import DenseData
from mbv2det.deploy.load import load
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.deploy.pictures import write_comparisons
from mbv2det.errors import DataError
from mbv2det.run_files import BEST, CHECKPOINTS, CONFIG, CURVES, METRICS, PICTURES
from mbv2det.training.checkpoints import LAST
from mbv2det.training.compilation import check_compiler, compile_errors
from mbv2det.training.loggers import log_settings, make_loggers
from mbv2det.training.module import DenseModule
from mbv2det.training.monitors import check_monitors
from mbv2det.training.refusal import unchanged_if_refused
from mbv2det.training.run_folder import new_run, resumed_run
from mbv2det.training.trainer import default_precision, lightning_errors, make_trainer

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
    pl.seed_everything(settings.config.seed, workers=True, verbose=False)
    resumed = resumed_run_of(settings)
    checkpoint = resumed[1] if resumed else None
    if settings.compile:
        check_compiler()
    parts = RunParts.read(settings, checkpoint)
    module, data = parts.module(), parts.data()
    check_monitors(settings.trainer["callbacks"] or [], module)
    log_data_statistics(module, parts.training, data)
    if settings.compile:
        module.compile_network()
    precision = default_precision(settings.trainer["accelerator"])
    dumped = settings.yaml(parts.initial.resolution, parts.info.model.heads, precision=precision)
    if resumed:
        check_settings(resumed[0] / CONFIG, dumped)
    folder = resumed[0] if resumed else new_run(runs_root(settings), settings.name)
    log(f"model: {count_parameters(module.model):,} parameters; run folder: {folder}")
    with unchanged_if_refused(folder) as started:
        trainer = make_trainer(
            settings.trainer | {"logger": make_loggers(settings.trainer["logger"], folder)},
            [started, *training_callbacks(parts, folder, module.tasks)],
            precision=precision,
            log_every_n_steps=_LOG_STEPS,
            enable_model_summary=False,
            default_root_dir=str(folder),
        )
        if trainer.is_global_zero:
            (folder / CONFIG).write_text(dumped)
            log_settings(trainer.loggers, yaml.safe_load(dumped))
        with lightning_errors(), resume_line(settings, folder), compile_errors():
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        conclude(folder, parts.validation)
        log_report(settings, folder, parts.validation, alone=trainer.world_size == 1)
    return folder


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
    best = folder / BEST
    predictor = load(best)
    metrics = predictor.info.metrics
    write_comparisons(predictor, validation, folder / PICTURES)
    if metrics:
        print_metrics(metrics)
        log(f"weights:     {best} (epoch {metrics['epoch']})")
        log(f"metrics:     {folder / METRICS}")
    else:
        log(f"weights:     {best} (of the last step: there was no validation)")
    log(f"pictures:    {folder / PICTURES} (annotation left, prediction right)")
    if (folder / CURVES).is_file():
        log(f"curves:      {folder / CURVES}")
    if any(folder.glob("events.out.tfevents*")):
        log(f"curves:      tensorboard --logdir {folder}")
    if (folder / CHECKPOINTS / LAST).is_file():
        log(f"resume from: {folder / CHECKPOINTS / LAST}")


def log_report(settings: Settings, folder: Path, validation: Annotations, *, alone: bool) -> None:
    """Writes the report of a run and logs its path; what goes wrong costs no more than the report.

    Args:
        settings: Settings of the training.
        folder: Folder of the run.
        validation: Validation split.
        alone: Whether this is the only process of the run; otherwise the command is named instead.
    """
    if not (folder / METRICS).is_file():
        return
    if not alone:
        log(f"report:      run mbv2det report {folder} --trainer.devices=1 --out FILE.html")
        return
    try:
        report_run(settings, folder, validation)
    except Exception as error:
        log(f"no report: {' '.join(str(error).split()) or type(error).__name__}")
