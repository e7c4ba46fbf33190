"""Two models on the same images: differences with intervals, and what changed.

Both are measured on the same draws of images (a paired bootstrap): what makes an image hard for
both models does not widen the interval of the difference.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from mbv2det.report import detection_analysis, segmentation_analysis
from mbv2det.report.analysis import AnalysedModel, Analysis
from mbv2det.report.detection_analysis import DetectionAnalysis
from mbv2det.report.intervals import interval
from mbv2det.report.plain import plain

_MOST_IMAGES = 20  # that became better, and that became worse


def compare_tasks(first: AnalysedModel, second: AnalysedModel) -> dict[str, Any]:
    """Returns the differences, second minus first, of every task that both models have.

    For each task: `metrics` and `classes`, each with the values of both, their difference, the ends
    of its 95 % interval and whether that leaves out 0 (`clear`); `images`, whose number of errors
    or share of wrong pixels changed most. A class that one model lacks is left out, and a task
    whose images differ.
    """
    shared = [name for name in first.analyses if name in second.analyses]
    return {
        task: _compare(first, second, task)
        for task in shared
        if np.array_equal(first.analyses[task].images, second.analyses[task].images)
    }


def _compare(first: AnalysedModel, second: AnalysedModel, task: str) -> dict[str, Any]:
    analyses = (first.analyses[task], second.analyses[task])
    averages = _averages(analyses[0])
    names = [_names(model, task) for model in (first, second)]
    columns = [
        {name: position for position, name in enumerate((*averages, *of_model))}
        for of_model in names
    ]
    shared = [name for name in names[0] if name in columns[1]]

    def row(name: str) -> dict[str, Any]:
        return _row(
            name,
            *(a.values[c[name]] for a, c in zip(analyses, columns, strict=True)),
            *(a.samples[:, c[name]] for a, c in zip(analyses, columns, strict=True)),
        )

    return {
        "metrics": [row(name) for name in averages],
        "classes": [row(name) for name in shared],
        "images": _changed_images(first, second, task),
    }


def _row(
    name: str,
    first: float,
    second: float,
    first_samples: Float64[np.ndarray, " B"],
    second_samples: Float64[np.ndarray, " B"],
) -> dict[str, Any]:
    difference = np.array([second - first])
    low, high = interval(difference, (second_samples - first_samples)[:, None])[:, 0]
    return {
        "name": name,
        "first": plain(first, 6),
        "second": plain(second, 6),
        "difference": plain(second - first, 6),
        "low": plain(low, 6),
        "high": plain(high, 6),
        "clear": bool(low > 0 or high < 0),
    }


def _averages(analysis: Analysis) -> tuple[str, ...]:
    if isinstance(analysis, DetectionAnalysis):
        return detection_analysis.AVERAGES
    return segmentation_analysis.AVERAGES


def _names(model: AnalysedModel, task: str) -> tuple[str, ...]:
    return model.model.info.label_maps[task].names


def _changed_images(first: AnalysedModel, second: AnalysedModel, task: str) -> list[dict[str, Any]]:
    """Returns the images that became better most, then those that became worse most."""
    before, after = (_errors_of_images(model.analyses[task]) for model in (first, second))
    change = after - before
    order = np.argsort(change, kind="stable")
    better = [row for row in order[:_MOST_IMAGES] if change[row] < 0]
    worse = [row for row in order[::-1][:_MOST_IMAGES] if change[row] > 0]
    images, split = first.analyses[task].images, first.split
    return [
        {
            "name": split.path(int(images[row])).name,
            "index": int(images[row]),
            "first": plain(before[row]),
            "second": plain(after[row]),
        }
        for row in (*better, *worse)
    ]


def _errors_of_images(analysis: Analysis) -> Float64[np.ndarray, " J"]:
    """Returns the number of errors, or the share of wrong pixels, of each measured image."""
    if isinstance(analysis, DetectionAnalysis):
        return analysis.errors.by_image[analysis.images].astype(np.float64)
    return analysis.wrong


def changed_classes(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the classes of a task whose interval leaves out 0, largest change first."""
    clear = [row for row in compared["classes"] if row["clear"]]
    return sorted(clear, key=lambda row: -abs(row["difference"]))
