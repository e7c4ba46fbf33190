"""`eval CONFIG --weights FILE`: the metrics of weights on a data set."""

import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mbv2det.build import build_tasks, read_split
from mbv2det.cli.report import print_results
from mbv2det.cli.session import ConfigParser, Settings, make_trainer, one_line_errors, say
from mbv2det.data.datamodule import DenseData
from mbv2det.data.shapes import ensure_shapes
from mbv2det.deploy.predictor import load_model
from mbv2det.files import write_json
from mbv2det.preprocess import Preprocessor
from mbv2det.training.callbacks import FaultReport
from mbv2det.training.module import DenseModule, metrics_document
from mbv2det.weights.files import WeightsInfo

_DESCRIPTION = """
Measures weights on the validation split of a configuration.

The weights bring their own architecture, preprocessing, classes and thresholds; CONFIG names the
data. eval.* and data.image_size given on the command line override what the weights say.
"""


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = ConfigParser(_DESCRIPTION)
    parser.add_option("--weights", required=True, help=".safetensors or .ckpt file to measure")
    parser.add_option("--out", help="write the metrics to this JSON file")
    evaluate(parser.parse(sys.argv[1:]))


def evaluate(settings: Settings) -> dict[str, Any]:
    """Evaluates as configured.

    Returns:
        The content of metrics.json.
    """
    model, stored = load_model(Path(settings.options.weights))
    info = overridden(stored, settings)
    data = settings.config.data
    if data.embedded:
        ensure_shapes(Path(data.root))
    split = read_split(data, data.val, "data.val").with_labels(info.labels)
    say(f"val: {split.summary()}")
    for line in split.report.lines():
        say(f"val: {line}")
    tasks = build_tasks(info.model, info.eval, info.labels)
    module = DenseModule(
        model,
        tasks,
        settings.config.optim,
        metrics={task.name: task.metric(split) for task in tasks},
        image_names=split.image_ids.tolist(),
    )
    loader = DenseData(
        None,
        split,
        Preprocessor(info.preprocess),
        None,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
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
        "weights": str(settings.options.weights),
        "seconds": round(seconds, 2),
        "images_per_second": round(document["images"] / seconds, 2),
    }
    if trainer.is_global_zero:
        conclude(document, settings)
    return document


def overridden(stored: WeightsInfo, settings: Settings) -> WeightsInfo:
    """What the weights say, with the command line's thresholds and size; differences are said."""
    config = settings.config
    thresholds = stored.eval
    for field in fields(thresholds):
        asked, kept = getattr(config.eval, field.name), getattr(thresholds, field.name)
        if f"eval.{field.name}" in settings.given:
            thresholds = replace(thresholds, **{field.name: asked})
        _say_difference(f"eval.{field.name}", kept, asked, settings)
    preprocess = stored.preprocess
    if "data.image_size" in settings.given:
        preprocess = replace(preprocess, size=config.data.size)
    _say_difference("data.image_size", stored.preprocess.size, config.data.size, settings)
    return replace(stored, eval=thresholds, preprocess=preprocess)


def _say_difference(key: str, stored: Any, asked: Any, settings: Settings) -> None:
    if stored != asked:
        winner = "command line" if key in settings.given else "weights"
        say(f"{key}: {stored} in the weights, {asked} asked for; the {winner} wins")


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
