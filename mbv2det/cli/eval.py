"""`eval CONFIG --weights FILE`: the metrics of weights on a data set."""

import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from mbv2det.build import build_tasks, read_split
from mbv2det.cli.report import print_results
from mbv2det.cli.session import (
    ConfigParser,
    Settings,
    make_trainer,
    one_line_errors,
    say,
    say_split,
)
from mbv2det.config import EvalConfig, ModelConfig
from mbv2det.data.datamodule import DenseData
from mbv2det.deploy.predictor import load_model
from mbv2det.files import write_json
from mbv2det.preprocess import Preprocessor
from mbv2det.training.callbacks import FaultReport
from mbv2det.training.module import DenseModule, metrics_document
from mbv2det.weights.files import WeightsInfo

_DESCRIPTION = """
Measures weights on the validation split of a configuration.

The weights bring their own architecture, preprocessing, classes and thresholds; CONFIG names the
data. eval.*, data.image_size and data.resize on the command line override what the weights say.
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
    split = read_split(data, data.val, "data.val").with_labels(info.labels)
    say_split("val", split)
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
    """What the weights say, with the command line's thresholds, size and resize rule.

    Every setting of the configuration that is set aside is said.
    """
    config = settings.config
    _say_architecture(stored, settings)
    thresholds = {
        field.name: _winner(
            f"eval.{field.name}",
            getattr(stored.eval, field.name),
            getattr(config.eval, field.name),
            settings,
        )
        for field in fields(stored.eval)
    }
    spec = stored.preprocess
    preprocess = replace(
        spec,
        size=_winner("data.image_size", spec.size, config.data.size, settings),
        resize=_winner("data.resize", spec.resize, config.data.resize, settings),
    )
    return replace(stored, eval=EvalConfig(**thresholds), preprocess=preprocess)


def _winner(key: str, stored: Any, asked: Any, settings: Settings) -> Any:
    """The command line's value if it gave one, else the weights'; a difference is said."""
    given = any(key == g or key.startswith(f"{g}.") for g in settings.given)
    if stored != asked:
        winner = "command line" if given else "weights"
        say(f"{key}: {stored} in the weights, {asked} asked for; the {winner} wins")
    return asked if given else stored


def _say_architecture(stored: WeightsInfo, settings: Settings) -> None:
    """Says where the configuration's network or classes differ from the weights' own."""
    config = settings.config
    asked = asdict(ModelConfig(replace(config.backbone, weights=None), config.heads))
    for part, values in asdict(stored.model).items():
        if values != asked[part]:
            say(f"{part}: {values} in the weights; they keep it, whatever was asked for")
    if config.data.classes not in ("auto", stored.labels.names):
        say(f"data.classes: the weights keep theirs: {', '.join(stored.labels.names)}")


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
