"""Evaluation of weights on a data set."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from mbv2det.atomic_write import write_json
from mbv2det.build import (
    evaluation_model,
    load_network,
    read_split,
    relabel,
    trainable,
)
from mbv2det.cli.overrides import resolved
from mbv2det.cli.settings import Settings
from mbv2det.cli.splits import log_split
from mbv2det.cli.tables import print_metrics
from mbv2det.config import Config, DataConfig
from mbv2det.console import log
from mbv2det.data.annotations import Annotations
from mbv2det.data.datamodule import DenseData
from mbv2det.data.formats import FORMATS
from mbv2det.deploy.load import is_exported, load
from mbv2det.deploy.measure import ignore_predictions, measure
from mbv2det.deploy.predictor import Predictor
from mbv2det.deploy.tiles import TiledPredictor, Tiling
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.model_config import EvalConfig
from mbv2det.preprocess import Preprocessor
from mbv2det.report.record import SplitRecord
from mbv2det.tasks import TASKS, TrainableTask, trainable_task
from mbv2det.tasks.task import metrics_document
from mbv2det.training.callbacks import DamagedFileWarnings, PredictionObserver
from mbv2det.training.module import DenseModule
from mbv2det.training.trainer import lightning_errors, make_trainer, num_loader_workers
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.readers import read_model
from mbv2det.weights.source import WeightsSource


@dataclass(frozen=True)
class Measured:
    """What an evaluation gives.

    Attributes:
        document: Content of metrics.json.
        info: Header of the weights, with what the command line overrides.
        network: The network in PyTorch; None for an exported file.
        record: Predictions, for a report; None if they were not kept.
        is_first: Whether this is the first process, which writes.
    """

    document: dict[str, Any]
    info: WeightsInfo
    network: MultiTaskModel | None = None
    record: SplitRecord | None = None
    is_first: bool = True


def evaluate(settings: Settings, out: str | None = None, *, recorded: bool = False) -> Measured:
    """Evaluates weights as configured, prints the metrics and writes them.

    Args:
        settings: Settings of the command.
        out: File to write the metrics to; None for none.
        recorded: Whether to keep the predictions for a report.
    """
    tiling = Tiling.of_options(settings.options.get("tiles"), settings.options.get("tile_overlap"))
    if tiling is not None or is_exported(str(settings.config.weights)):
        measured = measure_predictor(settings, tiling, recorded)
    else:
        measured = measure_network(settings, recorded)
    if measured.is_first:
        conclude(measured.document, out)
    return measured


def measure_network(settings: Settings, recorded: bool) -> Measured:
    """Measures weights in PyTorch, as a training does."""
    source = read_model(str(settings.config.weights))
    source = replace(source, info=resolved(source.info, settings))
    names = measured_tasks(source.info, settings)
    split = read_measured_split(settings.config.data, source.info, names)
    return measure_on(split, source, names, settings, recorded=recorded)


def measure_on(
    split: Annotations,
    source: WeightsSource,
    names: Sequence[str],
    settings: Settings,
    *,
    recorded: bool,
) -> Measured:
    """Measures weights in PyTorch on a split that is in their labels.

    Args:
        split: Annotations.
        source: The weights.
        names: Names of the tasks to measure.
        settings: Settings of the command.
        recorded: Whether to keep the predictions for a report.
    """
    config, info = settings.config, source.info
    model, all_tasks = load_network(source)
    tasks = [task for task in trainable(all_tasks) if task.name in names]
    record = SplitRecord(tasks, split) if recorded else None
    trainer = _validation_trainer(settings, split, record)
    module = validation_module(model, tasks, split, info, config)
    started = time.perf_counter()
    with lightning_errors():
        trainer.validate(module, validation_data(split, info, config), verbose=False)
    document = with_speed(metrics_document(module.results), time.perf_counter() - started)
    document["weights"] = source.source
    return Measured(document, info, model, record, trainer.is_global_zero)


def validation_module(
    model: MultiTaskModel,
    tasks: Sequence[TrainableTask],
    split: Annotations,
    info: WeightsInfo,
    config: Config,
) -> DenseModule:
    """Builds the Lightning module of an evaluation."""
    return DenseModule(
        model,
        tasks,
        config.optim,
        metrics={task.name: task.metric(split, config.eval) for task in tasks},
        image_names=split.image_ids.tolist(),
        evaluation_model=partial(evaluation_model, tasks=tasks, thresholds=info.eval),
    )


def validation_data(split: Annotations, info: WeightsInfo, config: Config) -> DenseData:
    """Builds the data module of an evaluation."""
    return DenseData(
        None,
        split,
        Preprocessor(info.preprocess),
        None,
        batch_size=config.data.batch_size,
        num_workers=num_loader_workers(config.data),
        seed=config.seed,
        on_error=config.data.on_error,
    )


def _validation_trainer(
    settings: Settings, split: Annotations, record: SplitRecord | None
) -> Trainer:
    observers = [] if record is None else [PredictionObserver(record.add)]
    trainer = make_trainer(
        settings.trainer,
        [DamagedFileWarnings({"val": split}), *observers],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    if observers and trainer.world_size > 1:
        raise ConfigError(
            f"--trainer.devices: expected one process for a report, got {trainer.world_size}; "
            "add --trainer.devices=1"
        )
    return trainer


# What an exported file holds and a command cannot change.
_FIXED_BY_EXPORT = (
    *(f"eval.{field.name}" for field in fields(EvalConfig)),
    "data.image_size",
    "data.resize",
    "backbone",
    "heads",
)


def measure_predictor(settings: Settings, tiling: Tiling | None, recorded: bool) -> Measured:
    """Measures as `predict` predicts: an exported file in the runtime of its suffix, or by tiles.

    Raises:
        ConfigError: If the command line sets what an exported file holds.
    """
    config, file = settings.config, str(settings.config.weights)
    predictor = _predictor(settings)
    measured = measured_tasks(predictor.info, settings)
    tasks = [task for task in trainable(predictor.tasks) if task.name in measured]
    split = read_measured_split(config.data, predictor.info, measured)
    record = SplitRecord(tasks, split) if recorded else None
    started = time.perf_counter()
    document = measure(
        predictor if tiling is None else TiledPredictor(predictor, tiling),
        tasks,
        split,
        config.eval,
        batch_size=config.data.batch_size,
        num_workers=num_loader_workers(config.data),
        observe=ignore_predictions if record is None else record.add,
    )
    document = with_speed(document, time.perf_counter() - started)
    document["weights"], document["backend"] = file, predictor.runtime.name
    if tiling is not None:
        document["tiles"] = str(tiling)
    return Measured(document, predictor.info, record=record)


def _predictor(settings: Settings) -> Predictor:
    """Returns the predictor of the weights or the exported file of a command line."""
    file = str(settings.config.weights)
    if is_exported(file):
        for key in settings.given:
            if key in _FIXED_BY_EXPORT or key.startswith(("backbone.", "heads.")):
                raise ConfigError(
                    f"--{key}: {file} keeps what it was exported with; export it again"
                )
        return load(file)
    source = read_model(file)
    info = resolved(source.info, settings)
    model, _ = load_network(replace(source, info=info))
    return Predictor.of_model(model.eval(), info)


def with_speed(document: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Returns the metrics with the duration and the speed of the evaluation."""
    speed = document["images"] / seconds
    return {**document, "seconds": round(seconds, 2), "images_per_second": round(speed, 2)}


def measured_tasks(info: WeightsInfo, settings: Settings) -> tuple[str, ...]:
    """Returns the tasks of the configuration for which the weights have a head.

    Raises:
        ConfigError: If there is none.
    """
    configured, available = settings.config.tasks, info.model.tasks
    measured = tuple(name for name in configured if name in available)
    if not measured:
        heads = f"a head for {' and '.join(available)}" if available else "none"
        raise ConfigError(
            f"heads: {settings.config.weights}: expected a head for {' or '.join(configured)}, "
            f"as {settings.name} configures, got {heads}"
        )
    for name in configured:
        if name not in available:
            log(f"heads.{name}: the weights have no such head; not measured")
    return measured


def read_measured_split(
    data: DataConfig, info: WeightsInfo, measured: Sequence[str]
) -> Annotations:
    """Reads the validation split in the labels of the weights; logs its counts and faults."""
    data = with_own_classes(data, info.label_maps)
    split = read_split(data, data.val, "data.val", measured)
    split = relabel(split, {name: info.label_maps[name] for name in measured})
    split = replace(split, value_range=info.preprocess.value_range)
    log_split("val", split)
    for name in measured:
        reason = trainable_task(name).missing_truth(split)
        if reason is not None:
            log(f"warning: {name} cannot be measured on {split.name}: {reason}")
    return split


def with_own_classes(data: DataConfig, label_maps: Mapping[str, LabelMap]) -> DataConfig:
    """Returns the data settings with all classes of the data, to be matched by name later."""
    if FORMATS[data.format].draws_masks:
        return replace(data, classes="auto", mask_classes=None)
    if data.format == "voc":
        return replace(data, classes="auto")
    for name, label_map in label_maps.items():
        data = TASKS[name].name_classes(data, label_map)
    return data


def conclude(document: dict[str, Any], out: str | None) -> None:
    """Prints the tables and writes the file."""
    print_metrics(document)
    log(
        f"{document['images']} images in {document['seconds']} s "
        f"({document['images_per_second']} images/s, loading and metrics included)"
    )
    if out:
        write_json(Path(out), document)
        log(f"metrics: {out}")
