"""The results of a benchmark as JSON and as tables."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table

from mbv2det.benchmark.rounds import TOTAL, Times, median_ratio
from mbv2det.benchmark.subject import STAGES, Facts, Setup
from mbv2det.report.environment import processor


@dataclass(frozen=True)
class Result:
    """What was measured of one network.

    Attributes:
        setup: How it was run.
        facts: Costs besides time.
        times: Times of every round.
        peak_memory: Largest resident memory of a process of its own, in bytes; None if it was not
            measured.
    """

    setup: Setup
    facts: Facts
    times: Times
    peak_memory: int | None = None


def document(results: Sequence[Result], loads: Sequence[float], rounds: int) -> dict[str, Any]:
    """Returns the content of the JSON file.

    Args:
        results: Result of each network.
        loads: Average load of the machine in the last minute, before and after the rounds.
        rounds: Number of rounds.
    """
    return {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_before": loads[0],
            "load_after": loads[1],
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rounds": rounds,
        "results": [_row(result, results[0]) for result in results],
    }


def load_of_machine() -> float:
    """Returns the number of processes that wanted to run, averaged over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def print_tables(content: Mapping[str, Any]) -> None:
    """Prints the networks with a number each, their times, and their costs, on standard output.

    Args:
        content: Content of the JSON file.
    """
    console = Console()
    for table in (_names, _times, _costs):
        console.print(table(content["results"]))
    machine = content["machine"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores; load {machine['load_before']:.1f} "
        f"before and {machine['load_after']:.1f} after; {content['rounds']} rounds",
        highlight=False,
    )


def _row(result: Result, first: Result) -> dict[str, Any]:
    setup, facts, times = result.setup, result.facts, result.times
    median = float(np.median(times.wall[TOTAL]))
    return {
        "name": setup.name,
        "backend": setup.backend,
        "precision": setup.precision,
        "threads": setup.threads,
        "batch": setup.batch,
        "input_size": list(facts.input_size),
        "milliseconds": {name: _quantiles(values) for name, values in times.wall.items()},
        "cpu_milliseconds": _quantiles(times.cpu),
        "images_per_second": setup.batch / median,
        "ratio": median_ratio(times, first.times, setup.batch, first.setup.batch),
        "parameters": facts.parameters,
        "multiply_adds": facts.multiply_adds,
        "file_bytes": facts.file_bytes,
        "peak_memory_bytes": result.peak_memory,
        "metrics": dict(facts.metrics or {}),
    }


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    median, p95 = np.quantile(seconds, [0.5, 0.95]) * 1000
    return {"median": float(median), "p95": float(p95)}


def _names(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("#", Column("network", overflow="fold"), "backend", "threads", "batch")
    for number, row in enumerate(rows, 1):
        run = (f"{row['backend']} {row['precision']}", str(row["threads"]), str(row["batch"]))
        table.add_row(str(number), row["name"], *run)
    return table


def _times(rows: Sequence[Mapping[str, Any]]) -> Table:
    headings = ("total", "p95", "CPU", "prep.", "network", "postp.", "images/s", "ratio")
    columns = [Column(heading, justify="right") for heading in headings]
    table = Table("#", *columns, title="Milliseconds of a batch (medians)")
    for number, row in enumerate(rows, 1):
        times = row["milliseconds"]
        table.add_row(
            str(number),
            f"{times[TOTAL]['median']:.1f}",
            f"{times[TOTAL]['p95']:.1f}",
            f"{row['cpu_milliseconds']['median']:.1f}",
            *(f"{times[stage]['median']:.2f}" for stage in STAGES),
            f"{row['images_per_second']:.1f}",
            f"{row['ratio']:.2f}",
        )
    return table


def _costs(rows: Sequence[Mapping[str, Any]]) -> Table:
    headings = ("input", "parameters", "multiply-adds", "file", "peak memory", "metrics")
    table = Table("#", *(Column(heading, justify="right") for heading in headings), title="Costs")
    for number, row in enumerate(rows, 1):
        height, width = row["input_size"]
        table.add_row(
            str(number),
            f"{height}x{width}",
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            _megabytes(row["file_bytes"]),
            _megabytes(row["peak_memory_bytes"]),
            "\n".join(f"{name} {value:.3f}" for name, value in row["metrics"].items()) or "-",
        )
    return table


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f} MB"
