"""The comparison of two measured models: tables, JSON, and the report of both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from mbv2det.atomic_write import write_json
from mbv2det.cli.evaluation import evaluate
from mbv2det.cli.reporting import measured_model, report_models
from mbv2det.cli.settings import Settings
from mbv2det.console import log, track
from mbv2det.errors import DataError
from mbv2det.report.analysis import analyse
from mbv2det.report.comparison import changed_classes, compare_tasks
from mbv2det.report.model import model_names

_IMAGES = 10  # rows of the table


def compare(settings: Sequence[Settings], json_file: Path | None, html_file: Path | None) -> None:
    """Measures two models, prints what differs and writes the files that are asked for.

    Args:
        settings: Settings for each model, which name its weights.
        json_file: Where to write the differences; None for nowhere.
        html_file: Where to write the report of both; None for nowhere.

    Raises:
        DataError: If the models have no task in common that can be measured on the data.
    """
    models = [
        measured_model(of_model, evaluate(of_model, recorded=True), "compare")
        for of_model in settings
    ]
    names = model_names([model.file for model in models])
    first, second = (analyse(name, model, track) for name, model in zip(names, models, strict=True))
    compared = compare_tasks(first, second)
    if not compared:
        raise DataError(
            f"{first.split.name}: expected a task that both models have and that was measured on "
            "the same images, found none"
        )
    print_comparison(names, compared)
    if json_file is not None:
        write_json(json_file, {"first": names[0], "second": names[1], **compared})
        log(f"differences: {json_file}")
    if html_file is not None:
        report_models(html_file, models)


def print_comparison(names: Sequence[str], compared: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the differences of every task on standard output."""
    console = Console()
    for task, part in compared.items():
        console.print(_differences(f"{task}: averages", names, part["metrics"]))
        changed = changed_classes(part)
        if changed:
            console.print(_differences(f"{task}: classes that changed", names, changed))
        else:
            console.print(f"{task}: no class changed by more than chance", highlight=False)
        if part["images"]:
            console.print(_images(task, names, part["images"]))


def _differences(title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column(name, justify="right", overflow="fold") for name in (*names, "difference")]
    table = Table("", *columns, Column("95 % interval", justify="right"), title=title)
    for row in rows:
        mark = "[bold]" if row["clear"] else ""
        table.add_row(
            row["name"],
            _number(row["first"]),
            _number(row["second"]),
            mark + _signed(row["difference"]),
            f"{_signed(row['low'])} to {_signed(row['high'])}",
        )
    return table


def _images(task: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the images that changed most, in either direction."""
    errors = "errors" if task == "detection" else "share of wrong pixels"
    columns = [Column(name, justify="right", overflow="fold") for name in names]
    table = Table("image", *columns, title=f"{task}: {errors} of the images that changed most")
    most = sorted(rows, key=lambda row: -abs(row["second"] - row["first"]))[:_IMAGES]
    for row in most:
        values = (f"{row[which]:.3g}" for which in ("first", "second"))
        table.add_row(row["name"], *values)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
