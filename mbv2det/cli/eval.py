"""`eval CONFIG --weights FILE`: the metrics of weights on a data set."""

import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from mbv2det.atomic_write import write_json
from mbv2det.build import build_tasks, read_split, seen_by, with_labels
from mbv2det.cli.report import print_results
from mbv2det.cli.session import (
    ConfigParser,
    Settings,
    loader_workers,
    make_trainer,
    one_line_errors,
    say,
    say_split,
)
from mbv2det.config import BackboneConfig, DataConfig, EvalConfig, HeadsConfig
from mbv2det.data.datamodule import DenseData
from mbv2det.deploy.predictor import assemble
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap, with_background
from mbv2det.preprocess import Preprocessor
from mbv2det.tasks import SegmentationTask
from mbv2det.training.callbacks import FaultReport
from mbv2det.training.module import DenseModule, metrics_document
from mbv2det.weights.readers import read_model
from mbv2det.weights.share_file import WeightsInfo

_DESCRIPTION = """
Measures weights on the validation split of a configuration.

--weights FILE names the .safetensors or .ckpt file. It brings its own architecture, preprocessing,
classes and thresholds; CONFIG names the data and the tasks. eval.*, data.image_size, data.resize
and backbone.output_stride on the command line override what the weights say.
"""


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = ConfigParser(_DESCRIPTION)
    parser.add_option("--out", help="write the metrics to this JSON file")
    settings = parser.parse(sys.argv[1:])
    if "weights" not in settings.given:
        raise ConfigError("--weights: expected the .safetensors or .ckpt file to measure, got none")
    evaluate(settings)


def evaluate(settings: Settings) -> dict[str, Any]:
    """Evaluates as configured.

    Returns:
        The content of metrics.json.
    """
    source = read_model(Path(str(settings.config.weights)))
    info = overridden(source.info, settings)
    model = assemble(replace(source, info=info))
    wanted = measured_tasks(info, settings)
    data = with_classes(settings.config.data, info.label_maps)
    split = read_split(data, data.val, "data.val", wanted)
    split = with_labels(split, {name: info.label_maps[name] for name in wanted})
    say_split("val", split)
    tasks = [t for t in build_tasks(info.model, info.eval, info.label_maps) if t.name in wanted]
    module = DenseModule(
        model,
        tasks,
        settings.config.optim,
        metrics={task.name: task.metric(split) for task in tasks},
        image_names=split.image_ids.tolist(),
        seen_by=partial(seen_by, thresholds=info.eval, tasks=wanted),
    )
    loader = DenseData(
        None,
        split,
        Preprocessor(info.preprocess),
        None,
        batch_size=data.batch_size,
        num_workers=loader_workers(data),
        seed=settings.config.seed,
    )
    trainer = make_trainer(
        settings,
        [FaultReport({"val": split})],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    started = time.perf_counter()
    trainer.validate(module, loader, verbose=False)
    seconds = time.perf_counter() - started
    document = metrics_document(module.results)
    document |= {
        "weights": source.source,
        "seconds": round(seconds, 2),
        "images_per_second": round(document["images"] / seconds, 2),
    }
    if trainer.is_global_zero:
        conclude(document, settings)
    return document


def measured_tasks(info: WeightsInfo, settings: Settings) -> tuple[str, ...]:
    """The tasks of the configuration that the weights have a head for.

    Raises:
        ConfigError: If there is none.
    """
    asked, there = settings.config.heads.tasks, info.model.heads.tasks
    wanted = tuple(name for name in asked if name in there)
    if not wanted:
        raise ConfigError(
            f"heads: {settings.config.weights} is for {' and '.join(there) or 'features alone'}, "
            f"but {settings.name} asks for {' and '.join(asked)}"
        )
    for name in asked:
        if name not in there:
            say(f"heads.{name}: the weights have no such head; not measured")
    return wanted


def with_classes(data: DataConfig, labels: Mapping[str, LabelMap]) -> DataConfig:
    """The data in all its own classes, which the weights' are matched with by name.

    A folder of masks has no names: those of the weights, unless the configuration gives some.
    """
    if data.format == "coco":
        return replace(data, classes="auto", mask_classes=None)
    if data.format == "voc":
        return replace(data, classes="auto")
    own = data.classes != "auto" or data.mask_classes is not None
    if own or SegmentationTask.name not in labels:
        return data
    masks = labels[SegmentationTask.name]
    return replace(data, classes=masks.names, mask_values=data.mask_values or masks.ids)


def overridden(stored: WeightsInfo, settings: Settings) -> WeightsInfo:
    """What the weights say, with what the command line may change: no tensor's shape.

    Every setting of the configuration that is set aside is said.
    """
    config = settings.config
    _say_architecture(stored, settings)
    thresholds = {
        field.name: settings.winner(
            f"eval.{field.name}",
            getattr(stored.eval, field.name),
            getattr(config.eval, field.name),
        )
        for field in fields(stored.eval)
    }
    spec = stored.preprocess
    preprocess = replace(
        spec,
        size=settings.winner("data.image_size", spec.size, config.data.size),
        resize=settings.winner("data.resize", spec.resize, config.data.resize),
    )
    backbone = stored.model.backbone
    key = "backbone.output_stride"
    stride = settings.winner(key, backbone.output_stride, config.backbone.output_stride)
    return replace(
        stored,
        model=replace(stored.model, backbone=replace(backbone, output_stride=stride)),
        eval=EvalConfig(**thresholds),
        preprocess=preprocess,
    )


def _say_architecture(stored: WeightsInfo, settings: Settings) -> None:
    """Says where the configuration's network or classes differ from the weights' own."""
    config = settings.config
    theirs, asked = (
        _architecture(model.backbone, model.heads, config.heads.tasks)
        for model in (stored.model, config)
    )
    for key, value in theirs.items():
        if asked.get(key) != value:
            say(f"{key}: {value} in the weights; they keep it, {asked.get(key)} was asked for")
    for task, labels in stored.label_maps.items():
        names = config.data.classes
        if names == "auto" or task not in config.heads.tasks:
            continue
        if labels.names not in (names, with_background(names)):
            say(f"data.classes: the weights keep theirs for {task}: {', '.join(labels.names)}")


def _architecture(
    backbone: BackboneConfig, heads: HeadsConfig, tasks: Collection[str]
) -> dict[str, Any]:
    """Settings of a network by key, those of other tasks and of the output stride left out."""
    parts = {"backbone": asdict(replace(backbone, weights=None))}
    for task in tasks:
        head = getattr(heads, task)
        parts[f"heads.{task}"] = {} if head is None else asdict(head)
    found = {f"{part}.{key}": value for part, of in parts.items() for key, value in of.items()}
    del found["backbone.output_stride"]
    return found


def conclude(document: dict[str, Any], settings: Settings) -> None:
    """Prints the tables and writes the file."""
    print_results(document)
    say(
        f"{document['images']} images in {document['seconds']} s "
        f"({document['images_per_second']} images/s, loading and metrics included)"
    )
    if settings.options.out:
        write_json(Path(settings.options.out), document)
        say(f"metrics: {settings.options.out}")
