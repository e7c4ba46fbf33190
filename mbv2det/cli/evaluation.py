"""Evaluation of weights on a data set."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
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
from mbv2det.cli.settings import Settings
from mbv2det.cli.tables import print_metrics
from mbv2det.cli.train import log_split
from mbv2det.config import DataConfig
from mbv2det.console import log
from mbv2det.data.annotations import Annotations
from mbv2det.data.datamodule import DenseData
from mbv2det.deploy.load import is_exported, load
from mbv2det.deploy.measure import measure
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap, with_background
from mbv2det.model_config import EvalConfig, ModelConfig
from mbv2det.preprocess import Preprocessor
from mbv2det.resolve import Difference, Overrides, in_section, resolve
from mbv2det.tasks import TASKS, trainable_task
from mbv2det.tasks.task import metrics_document
from mbv2det.training.callbacks import DamagedFileWarnings
from mbv2det.training.module import DenseModule
from mbv2det.training.trainer import lightning_errors, make_trainer, num_loader_workers
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.readers import read_model


def evaluate(settings: Settings) -> dict[str, Any]:
    """Evaluates weights as configured.

    Returns:
        The content of metrics.json.
    """
    config = settings.config
    if is_exported(str(config.weights)):
        return evaluate_exported(settings)
    source = read_model(Path(str(config.weights)))
    info = resolved(source.info, settings)
    model, all_tasks = load_network(replace(source, info=info))
    measured = measured_tasks(info, settings)
    tasks = [task for task in trainable(all_tasks) if task.name in measured]
    split = read_measured_split(config.data, info, measured)
    module = DenseModule(
        model,
        tasks,
        config.optim,
        metrics={task.name: task.metric(split, config.eval) for task in tasks},
        image_names=split.image_ids.tolist(),
        evaluation_model=partial(evaluation_model, tasks=tasks, thresholds=info.eval),
    )
    data = DenseData(
        None,
        split,
        Preprocessor(info.preprocess),
        None,
        batch_size=config.data.batch_size,
        num_workers=num_loader_workers(config.data),
        seed=config.seed,
    )
    trainer = _validation_trainer(settings, split)
    started = time.perf_counter()
    with lightning_errors():
        trainer.validate(module, data, verbose=False)
    document = with_speed(metrics_document(module.results), time.perf_counter() - started)
    document["weights"] = source.source
    if trainer.is_global_zero:
        conclude(document, settings.options.out)
    return document


def _validation_trainer(settings: Settings, split: Annotations) -> Trainer:
    return make_trainer(
        settings.trainer,
        [DamagedFileWarnings({"val": split})],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


# What an exported file holds and a command cannot change.
_FIXED_BY_EXPORT = (
    *(f"eval.{field.name}" for field in fields(EvalConfig)),
    "data.image_size",
    "data.resize",
    "backbone",
    "heads",
)


def evaluate_exported(settings: Settings) -> dict[str, Any]:
    """Evaluates an exported file, in the runtime of its suffix.

    Returns:
        The content of metrics.json.

    Raises:
        ConfigError: If the command line sets what the file holds.
    """
    config, file = settings.config, str(settings.config.weights)
    for key in settings.given:
        if key in _FIXED_BY_EXPORT or key.startswith(("backbone.", "heads.")):
            raise ConfigError(f"--{key}: {file} keeps what it was exported with; export it again")
    predictor = load(file)
    measured = measured_tasks(predictor.info, settings)
    tasks = [task for task in trainable(predictor.tasks) if task.name in measured]
    split = read_measured_split(config.data, predictor.info, measured)
    started = time.perf_counter()
    document = measure(
        predictor,
        tasks,
        split,
        config.eval,
        batch_size=config.data.batch_size,
        num_workers=num_loader_workers(config.data),
    )
    document = with_speed(document, time.perf_counter() - started)
    document["weights"], document["backend"] = file, predictor.runtime.name
    conclude(document, settings.options.out)
    return document


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
    if data.format == "coco":
        return replace(data, classes="auto", mask_classes=None)
    if data.format == "voc":
        return replace(data, classes="auto")
    for name, label_map in label_maps.items():
        data = TASKS[name].name_classes(data, label_map)
    return data


def resolved(stored: WeightsInfo, settings: Settings) -> WeightsInfo:
    """Returns the header of the weights with the settings that the command line overrides.

    Settings that change the shape of a tensor cannot be overridden. Logs every setting of the
    configuration that is not used.
    """
    log_architecture(stored, settings)
    info, differences = with_overrides(stored, settings)
    for difference in differences:
        log(str(difference))
    return info


def with_overrides(
    stored: WeightsInfo, settings: Settings
) -> tuple[WeightsInfo, tuple[Difference, ...]]:
    """Returns what `resolved` does, and the settings on which weights and configuration differ."""
    config, spec, thresholds = settings.config, stored.preprocess, stored.eval
    resolution = resolve(
        {
            **in_section("eval", asdict(thresholds)),
            "data.image_size": spec.size,
            "data.resize": spec.resize,
            "backbone.output_stride": stored.model.backbone.output_stride,
        },
        {
            **in_section("eval", asdict(config.eval.thresholds())),
            "data.image_size": config.data.size,
            "data.resize": config.data.resize,
            "backbone.output_stride": config.backbone.output_stride,
        },
        Overrides(settings.given, config.override_weights),
    )
    values = resolution.values
    info = replace(
        stored,
        model=replace(stored.model, backbone=resolution.update("backbone", stored.model.backbone)),
        eval=resolution.update("eval", thresholds),
        preprocess=replace(spec, size=values["data.image_size"], resize=values["data.resize"]),
    )
    return info, resolution.differences


def log_architecture(stored: WeightsInfo, settings: Settings) -> None:
    """Logs differences of network and classes between the configuration and the weights."""
    config = settings.config
    stored_settings, configured = (
        _architecture(model, config.tasks) for model in (stored.model, config.model())
    )
    for key, value in stored_settings.items():
        if configured.get(key) != value:
            log(f"{key}: {value} in the weights, which keep it; {configured.get(key)} configured")
    names = config.data.classes
    for task, label_map in stored.label_maps.items():
        if names == "auto" or task not in config.tasks:
            continue
        if label_map.names not in (names, with_background(names)):
            log(
                f"data.classes: not used; the weights' {task} classes: {', '.join(label_map.names)}"
            )


def _architecture(model: ModelConfig, tasks: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of a network by dotted name, without other tasks and output stride."""
    settings = in_section("backbone", asdict(model.backbone))
    for task in tasks:
        if task in model.heads:
            settings |= in_section(f"heads.{task}", asdict(model.heads[task]))
    del settings["backbone.output_stride"]
    return settings


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
