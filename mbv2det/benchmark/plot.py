"""Accuracy against latency, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mbv2det.atomic_write import atomic_write
from mbv2det.benchmark.rounds import TOTAL
from mbv2det.errors import ConfigError


def write_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a picture with a panel for each metric: a point for each network that has it.

    Args:
        rows: The `results` of a benchmark's JSON file.
        path: PNG or SVG file to write.

    Raises:
        ConfigError: If no network has a metric, or matplotlib is not installed.
    """
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    if not metrics:
        raise ConfigError(
            "--plot: expected weights whose header has metrics, got none; weights of a training "
            "run have them"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError(
            "--plot: expected matplotlib, found none; pip install 'mbv2det[studies]'"
        ) from None
    figure = Figure(figsize=(6 * len(metrics), 4.5), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for row in rows:
            if metric in row["metrics"]:
                x, y = row["milliseconds"][TOTAL]["median"] / row["batch"], row["metrics"][metric]
                panel.scatter(x, y)
                panel.annotate(_label(row), (x, y), textcoords="offset points", xytext=(5, 5))
        panel.set(xlabel="milliseconds per image, end to end", ylabel=metric)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix.removeprefix(".") or "png")


def _label(row: Mapping[str, Any]) -> str:
    return (
        f"{row['name']}\n{row['backend']} {row['precision']}, "
        f"threads {row['threads']}, batch {row['batch']}"
    )
