"""Reports and comparisons of what was measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mbv2det.build import build_tasks, trainable
from mbv2det.cli.command_line import command_line, without_folders
from mbv2det.cli.evaluation import Measured, evaluate, measure_on
from mbv2det.cli.settings import Settings
from mbv2det.console import log, track
from mbv2det.counting import count_parameters
from mbv2det.data.annotations import Annotations
from mbv2det.errors import DataError
from mbv2det.model import MultiTaskModel
from mbv2det.preprocess import Preprocessor
from mbv2det.report.model import MeasuredModel
from mbv2det.report.page import write_report
from mbv2det.report.record import SplitRecord
from mbv2det.run_files import BEST, REPORT
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.readers import read_model


def report_weights(path: Path, settings: Sequence[Settings], *, seeds: bool = False) -> None:
    """Measures weights and writes their report.

    Args:
        path: File to write.
        settings: Settings for each file of weights, which they name.
        seeds: Whether the weights are of runs of one configuration with other seeds.
    """
    measured = [evaluate(of_file, recorded=True) for of_file in settings]
    report(path, settings, measured, command="report", seeds=seeds)


def report_run(settings: Settings, folder: Path, validation: Annotations) -> None:
    """Measures the best weights of a run again, keeping their predictions, and writes the report.

    Args:
        settings: Settings of the training.
        folder: Folder of the run.
        validation: Validation split, in the labels of the run.
    """
    best = folder / BEST
    # The user's callbacks and loggers are for the training.
    settings = replace(
        settings,
        config=replace(settings.config, weights=str(best)),
        trainer=settings.trainer | {"callbacks": None, "logger": None},
    )
    source = read_model(best)
    measured = measure_on(validation, source, settings.config.tasks, settings, recorded=True)
    report(folder / REPORT, [settings], [measured], command="train")


def report(
    path: Path,
    settings: Sequence[Settings],
    measured: Sequence[Measured],
    *,
    command: str,
    seeds: bool = False,
) -> None:
    """Writes the report of measured models and logs where it is.

    Args:
        path: File to write.
        settings: Settings with which each model was measured.
        measured: What was measured of each model; the predictions must have been kept.
        command: Name of the running command.
        seeds: Whether the models are runs of one configuration with other seeds.
    """
    models = [
        measured_model(of_model, result, command)
        for of_model, result in zip(settings, measured, strict=True)
    ]
    report_models(path, models, seeds=seeds)


def report_models(path: Path, models: Sequence[MeasuredModel], *, seeds: bool = False) -> None:
    """Writes the report of measured models and logs where it is; arguments as `report`."""
    write_report(path, models, track, seeds=seeds)
    log(f"report:      {path} ({path.stat().st_size / 1e6:.1f} MB)")


def measured_model(settings: Settings, measured: Measured, command: str) -> MeasuredModel:
    """Returns a measured model as reports take it."""
    assert measured.record is not None
    facts = {
        "metrics of": f"{measured.document['images']} images in {measured.document['seconds']} s",
        **_facts_of_weights(measured.info),
    }
    if measured.network is not None:
        facts["parameters"] = f"{count_parameters(measured.network):,}"
        facts |= _data_lines(measured.network, measured.info, measured.record)
    return MeasuredModel(
        file=Path(str(settings.config.weights)),
        info=measured.info,
        document=measured.document,
        record=measured.record,
        command=command_line(command, settings.arguments),
        config=without_folders(settings.yaml()),
        facts=facts,
    )


def _facts_of_weights(info: WeightsInfo) -> dict[str, str]:
    height, width = info.preprocess.size
    heads = " and ".join(head.name for head in info.model.heads.values())
    backbone = info.model.backbone
    return {
        "network": f"{backbone.name}, width {backbone.width_mult}, with {heads}",
        "input (height x width)": f"{height} x {width} pixels, {info.preprocess.resize}",
        "lowest score, overlap and number of detections": (
            f"{info.eval.score_threshold}, {info.eval.nms_iou}, {info.eval.max_detections}"
        ),
    }


@torch.inference_mode()
def _data_lines(network: MultiTaskModel, info: WeightsInfo, record: SplitRecord) -> dict[str, str]:
    """Returns a line for each task on how well it suits the data, such as its anchors."""
    device = next(network.parameters()).device
    outputs = network.eval()(torch.zeros(1, 3, *info.preprocess.size, dtype=torch.uint8).to(device))
    lines = {}
    for task in trainable(build_tasks(info.model, info.eval, info.label_maps)):
        if task.name in record.tasks:
            try:
                line = task.describe_data(
                    outputs[task.name], record.split, Preprocessor(info.preprocess)
                )
            except DataError as error:
                line = str(error)
            lines[f"{task.name} data"] = line
    return lines
