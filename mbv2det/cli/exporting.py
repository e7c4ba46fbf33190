"""The export of weights: written, run, compared with PyTorch."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table

from mbv2det.atomic_write import write_json
from mbv2det.build import load_network, read_split, trainable
from mbv2det.cli.evaluation import measured_tasks, read_measured_split
from mbv2det.cli.overrides import resolved, with_overrides
from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import AnnotatedImages
from mbv2det.deploy.check import metric_changes, output_differences
from mbv2det.deploy.export import Export, export, without_views
from mbv2det.deploy.formats import FORMATS, Format
from mbv2det.deploy.load import load
from mbv2det.deploy.measure import measure
from mbv2det.deploy.predictor import Predictor
from mbv2det.deploy.runtimes.runtime import GraphRuntime
from mbv2det.errors import ConfigError, DataError
from mbv2det.model import MultiTaskModel
from mbv2det.structures import SampleKey
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.readers import read_model

_NUM_COMPARED = 8  # images whose outputs are compared one by one


def export_and_check(
    settings: Settings, option_names: Sequence[str], *, own_data: bool
) -> dict[str, Any]:
    """Exports weights as configured, runs the file, and compares it with PyTorch.

    Args:
        settings: Settings, with the options of the command.
        option_names: Names of the output options of the tasks.
        own_data: Whether the user named a configuration. Without one the embedded data set gives
            images, and metrics where the weights have its classes.

    Returns:
        The comparison, which is also written beside the file.

    Raises:
        ConfigError: If the weights have no head, or the format cannot express what is asked for.
    """
    source, path = Path(str(settings.config.weights)), Path(settings.options.out)
    weights = read_model(source)
    header = resolved if own_data else _with_command_line
    info = without_views(header(weights.info, settings))
    if not info.model.tasks:
        raise ConfigError(f"--weights: expected a head, got a backbone alone in {source}")
    model, _ = load_network(replace(weights, info=info))
    model.eval()
    kind = _format(settings.options.format)
    options = {name: settings.options[name] for name in option_names}
    request = Export(
        model,
        info,
        kind,
        settings.options.precision,
        options,
        source,
        resizes=settings.options.resize,
    )
    graph = export(request, path)
    log(f"exported: {path}")
    report: dict[str, Any] = {"file": path.name, **asdict(graph)}
    del report["constants"]
    if kind.runs_here:
        report |= compare(model, info, path, settings, own_data=own_data)
    else:
        log(f"not run: this machine cannot run {kind.name}")
    beside = path.with_suffix(".check.json")
    write_json(beside, report)
    print_report(report)
    log(f"comparison: {beside}")
    return report


def compare(
    model: MultiTaskModel, info: WeightsInfo, path: Path, settings: Settings, *, own_data: bool
) -> dict[str, Any]:
    """Compares an exported file with PyTorch, on the validation split of the configuration.

    Returns:
        `outputs`, the largest difference of each output over some images, and `metrics`, the main
        metric of every task that the split is annotated for.
    """
    measured, split = _comparison_split(info, settings, own_data=own_data)
    predictor = load(path)
    runtime = predictor.runtime
    assert isinstance(runtime, GraphRuntime)
    images = _images(split, predictor)
    report: dict[str, Any] = {"outputs": output_differences(model, runtime, images)}
    tasks = [task for task in trainable(predictor.tasks) if task.name in measured]
    if not tasks:
        return report
    documents = [
        measure(
            each,
            tasks,
            split,
            settings.config.eval,
            batch_size=settings.config.data.batch_size,
        )
        for each in (Predictor.of_model(model, info, "cpu"), predictor)
    ]
    return report | {"metrics": metric_changes(tasks, *documents), "images": len(split)}


def _comparison_split(
    info: WeightsInfo, settings: Settings, *, own_data: bool
) -> tuple[Sequence[str], Annotations]:
    """Returns the tasks whose metrics can be compared, and the images to compare with."""
    data = settings.config.data
    try:
        measured = measured_tasks(info, settings)
        return measured, read_measured_split(data, info, measured)
    except (ConfigError, DataError):
        if own_data:
            raise
    log("metrics: not compared, the embedded data set has other classes; give CONFIG to compare")
    return (), read_split(data, data.val, "data.val", settings.config.tasks)


def _with_command_line(stored: WeightsInfo, settings: Settings) -> WeightsInfo:
    """Returns the header with what the command line overrides, without a look at other settings."""
    info, differences = with_overrides(stored, settings)
    for difference in differences:
        if difference.winner != "the weights":
            log(str(difference))
    return info


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"--format: expected one of {', '.join(FORMATS)}, got {name}")
    return FORMATS[name]


def _images(split: Annotations, predictor: Predictor) -> list[torch.Tensor]:
    """Returns images spread evenly over a split, as the file takes them, each a batch of one."""
    images = AnnotatedImages(split, predictor.preprocessor)
    indices = evenly_spaced(len(split), _NUM_COMPARED)
    pixels = [np.array(images[SampleKey(0, index)].image) for index in indices]
    return [torch.from_numpy(image).permute(2, 0, 1)[None] for image in pixels]


def print_report(report: dict[str, Any]) -> None:
    """Prints the differences from PyTorch as tables on standard output."""
    console = Console()
    if "outputs" in report:
        table = Table("output", Column("largest difference", justify="right"))
        for name, value in report["outputs"].items():
            table.add_row(name, f"{value:.2g}")
        console.print(table)
    if "metrics" in report:
        headings = (Column(name, justify="right") for name in ("PyTorch", "exported", "change"))
        table = Table("metric", *headings, title=f"{report['images']} images")
        for name, row in report["metrics"].items():
            cells = ("-" if value is None else f"{value:.4f}" for value in row.values())
            table.add_row(name, *cells)
        console.print(table)
