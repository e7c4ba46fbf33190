"""Losses and metrics of a training, from the files that its run folder has."""

import csv
from pathlib import Path

from mbv2det.run_files import CURVES, EARLIER_CURVES

_MOST = 400  # points of a curve


def training_curves(folder: Path) -> dict[str, list[list[float]]]:
    """Returns the curves of a run folder by name, each as [[step, ...], [value, ...]].

    Long curves are thinned evenly. A folder without logs has no curves.
    """
    points: dict[str, dict[int, float]] = {}
    for file in (*sorted(folder.glob(EARLIER_CURVES.format("*")), key=_number), folder / CURVES):
        if file.is_file():
            _read(file, points)
    return {name: _thinned(curve) for name, curve in sorted(points.items())}


def _read(file: Path, points: dict[str, dict[int, float]]) -> None:
    """Adds the values of a file; where two files have the same step, the later one counts."""
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            step = _value(row.get("step"))
            for name, text in row.items():
                value = _value(text)
                if step is not None and value is not None and name not in ("step", "epoch"):
                    points.setdefault(name, {})[int(step)] = value


def _value(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _thinned(curve: dict[int, float]) -> list[list[float]]:
    steps = sorted(curve)
    stride = -(-len(steps) // _MOST)
    kept = steps[::-stride][::-1] if steps else []  # the last point always
    return [[float(step) for step in kept], [float(f"{curve[step]:.5g}") for step in kept]]


def _number(file: Path) -> int:
    return int(file.stem.rsplit("_", 1)[1])
