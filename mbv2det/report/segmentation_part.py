"""The masks of a model as plain values for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbv2det.report.intervals import interval
from mbv2det.report.plain import plain, plain_metric
from mbv2det.report.segmentation_analysis import AVERAGES, SegmentationAnalysis


def segmentation_part(
    analysis: SegmentationAnalysis, scores: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Returns the numbers of a page about the masks of one model.

    Args:
        analysis: Analysis of the masks.
        scores: Section of metrics.json, whose numbers are shown as they are.
        names: Names of the labels.
    """
    ends = interval(analysis.values, analysis.samples)
    known = dict(zip(AVERAGES, ends.T, strict=False))
    confusion = analysis.confusion
    right, pixels = np.diagonal(confusion), max(1, int(confusion.sum()))
    annotated, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    low, high = ends[:, len(AVERAGES) :]
    return {
        "classes": list(names),
        "metrics": [
            plain_metric(name, value, known.get(name))
            for name, value in scores.items()
            if value is None or isinstance(value, float)
        ],
        "per_class": [
            {
                "iou": scores["per_class"][name],
                "low": plain(low[label]),
                "high": plain(high[label]),
                "share": plain(annotated[label] / pixels),
                "precision": _fraction(right[label], predicted[label]),
                "recall": _fraction(right[label], annotated[label]),
            }
            for label, name in enumerate(names)
        ],
        "confusion": plain(confusion),
    }


def _fraction(part: np.int64, whole: np.int64) -> float | None:
    return round(float(part / whole), 4) if whole else None
