"""The export of weights: written, run, compared with PyTorch."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table

from mbv2det.atomic_write import write_json
from mbv2det.build import load_network, read_split, trainable
from mbv2det.cli.evaluation import measured_tasks, read_measured_split
from mbv2det.cli.int8 import (
    calibration_images,
    check_int8_options,
    export_int8,
    print_costs,
    stop_without_file,
)
from mbv2det.cli.overrides import resolved, with_overrides
from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import AnnotatedImages
from mbv2det.deploy.check import metric_changes, output_differences
from mbv2det.deploy.export import Export, check_export, export, without_views
from mbv2det.deploy.formats import FORMATS, INT8, Format
from mbv2det.deploy.load import load
from mbv2det.deploy.measure import measure
from mbv2det.deploy.predictor import Predictor
from mbv2det.deploy.runtimes.runtime import GraphRuntime
from mbv2det.errors import ConfigError, DataError
from mbv2det.structures import SampleKey
from mbv2det.tasks import TrainableTask
from mbv2det.weights.header import WeightsInfo, encode_info
from mbv2det.weights.readers import read_model, weights_file

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
    source, path = str(settings.config.weights), Path(settings.options.out)
    weights = read_model(source)
    header = resolved if own_data else _with_command_line
    info = without_views(header(weights.info, settings))
    info = _with_metrics_that_hold(info, weights.info, settings.options.precision)
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
        weights_file(source),
        resizes=settings.options.resize,
    )
    check_export(request, path)
    check_int8_options(settings)
    report = _write_and_compare(request, path, settings, own_data=own_data)
    beside = path.with_suffix(".check.json")
    write_json(beside, report)
    print_report(report)
    log(f"comparison: {beside}")
    if report["file"] is None:
        stop_without_file(report)
    return report


def _with_metrics_that_hold(
    info: WeightsInfo, measured: WeightsInfo, precision: str
) -> WeightsInfo:
    """Returns the header of the file without metrics that do not hold for it.

    Other settings change them by any amount, and so does int8; fp16 and bf16 hardly do.

    Args:
        info: Header of the file, with the settings of the command line.
        measured: Header of the weights.
        precision: Numbers that the file computes in.
    """
    unmeasured = replace(info, metrics={})
    same_settings = encode_info(unmeasured) == encode_info(replace(measured, metrics={}))
    if not info.metrics or (same_settings and precision != INT8):
        return info
    other = "float32" if same_settings else "other settings"
    log(f"metrics: those of the weights are of {other}, and are left out of the file")
    return unmeasured


def _write_and_compare(
    request: Export, path: Path, settings: Settings, *, own_data: bool
) -> dict[str, Any]:
    """Writes the file; returns its description, and its differences from PyTorch."""
    comparison = Comparison(request, settings, own_data=own_data)
    report: dict[str, Any] = {"file": path.name}
    if request.precision == INT8:
        made = export_int8(
            request,
            path,
            calibration_images(settings, request, own_data=own_data),
            max_drop=settings.options.max_drop,
            drop_of=comparison.drop if comparison.tasks else None,
        )
        if made.graph is None:
            return {"file": None, "int8": made.report}
        graph, report["int8"] = made.graph, made.report
    else:
        graph = export(request, path)
    log(f"exported: {path}")
    described = asdict(graph)
    del described["constants"], described["outputs"]  # numbers of anchors; names of tensors
    report |= described
    if not request.format.not_run:
        return report | comparison.of(path)
    log(f"converted and its description checked, not run: {request.format.not_run}")
    return report | {"not run": request.format.not_run}


class Comparison:
    """Compares exported files with PyTorch, on the validation split of the configuration.

    Args:
        request: What is exported.
        settings: Settings, with the options of the command.
        own_data: Whether the user named a configuration.
    """

    def __init__(self, request: Export, settings: Settings, *, own_data: bool) -> None:
        self._request = request
        self._settings = settings
        self._own_data = own_data
        self._reference = Predictor.of_model(request.model, request.info, "cpu")

    @property
    def split(self) -> Annotations:
        """Images to compare with."""
        return self._measured[1]

    @property
    def tasks(self) -> list[TrainableTask]:
        """Tasks that the images are annotated for."""
        names, _ = self._measured
        return [task for task in trainable(self._reference.tasks) if task.name in names]

    @cached_property
    def _measured(self) -> tuple[Sequence[str], Annotations]:
        return _comparison_split(self._request.info, self._settings, own_data=self._own_data)

    def of(self, path: Path) -> dict[str, Any]:
        """Compares a file.

        Returns:
            `outputs`, the largest difference of each output over some images, and `metrics`, the
            main metric of every task that the split is annotated for.
        """
        predictor = load(path)
        runtime = predictor.runtime
        assert isinstance(runtime, GraphRuntime)
        images = _images(self.split, predictor)
        report = {"outputs": output_differences(self._request.model, runtime, images)}
        if not self.tasks:
            return report
        return report | {"metrics": self._changes(predictor), "images": len(self.split)}

    def drop(self, path: Path) -> float:
        """Returns the largest drop of a task's main metric in a file."""
        changes = self._changes(load(path)).values()
        return max(-row["change"] for row in changes if row["change"] is not None)

    def _changes(self, predictor: Predictor) -> dict[str, dict[str, float | None]]:
        return metric_changes(self.tasks, self._metrics_in_pytorch, self._metrics(predictor))

    @cached_property
    def _metrics_in_pytorch(self) -> dict[str, Any]:
        return self._metrics(self._reference)

    def _metrics(self, predictor: Predictor) -> dict[str, Any]:
        config = self._settings.config
        size = config.data.batch_size
        return measure(predictor, self.tasks, self.split, config.eval, batch_size=size)


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
    if "int8" in report:
        print_costs(report["int8"], report.get("float_parts", ()))
