"""Tables of metrics on standard output."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from mbv2det.tasks import trainable_task

_COLUMNS = 6  # values in a row: narrow enough for any terminal


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """Prints the averages of every task, and the metric of each class.

    Args:
        metrics: Content of metrics.json.
    """
    console = Console()
    for task, section in metrics.items():
        if isinstance(section, Mapping):
            averages = {k: v for k, v in section.items() if v is None or isinstance(v, float)}
            console.print(_averages(f"{task}, {section['images']} images", averages))
            heading = trainable_task(task).per_class_metric
            console.print(_classes(section["per_class"], heading))


def _averages(title: str, averages: Mapping[str, float | None]) -> Table:
    """Returns a table of names above values."""
    table = Table(title=title, show_header=False)
    names = list(averages)
    for start in range(0, len(names), _COLUMNS):
        row = names[start : start + _COLUMNS]
        table.add_row(*(f"[bold]{name}" for name in row))
        table.add_row(*(_cell(averages[name]) for name in row), end_section=True)
    return table


def _classes(per_class: Mapping[str, float | None], metric: str) -> Table:
    table = Table("class", Column(metric, justify="right"))
    for name, value in per_class.items():
        table.add_row(name, _cell(value))
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
