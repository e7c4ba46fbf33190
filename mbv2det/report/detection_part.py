"""The detections of a model as plain values for a page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mbv2det.metrics.overlaps import NO_OBJECT
from mbv2det.report.calibration import Calibration, calibrate
from mbv2det.report.detection_analysis import AVERAGES, DetectionAnalysis
from mbv2det.report.error_split import KINDS, MISSED, NO_ERROR
from mbv2det.report.intervals import interval
from mbv2det.report.object_groups import NEIGHBOURS, OVERLAPS, SIZES, found_by_group
from mbv2det.report.plain import plain, plain_metric

RIGHT, ON_CROWD = "right", "on a crowd"
"""Kinds of detections besides `error_split.KINDS`."""
_SHOWN = 60  # detections of an image


def detection_part(analysis: DetectionAnalysis, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers of a page about the detections of one model.

    Args:
        analysis: Analysis of the detections.
        scores: Section of metrics.json, whose numbers are shown as they are.
    """
    curves = analysis.curves
    return {
        "classes": list(analysis.truth.label_map.names),
        "metrics": _metrics(analysis, scores),
        "per_class": _per_class(analysis, scores),
        "min_score": analysis.min_score,
        "curves": {
            name: plain(getattr(curves, name), 3)
            for name in ("precision_at_recalls", "precision", "recall", "f1")
        },
        "confusion": plain(analysis.confusion),
        "errors": _errors(analysis),
        "groups": _groups(analysis),
        "calibration": _calibration(analysis),
    }


def _metrics(analysis: DetectionAnalysis, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    ends = interval(analysis.values, analysis.samples)
    known = dict(zip(AVERAGES, ends.T, strict=False))
    return [
        plain_metric(name, value, known.get(name))
        for name, value in scores.items()
        if value is None or isinstance(value, float)
    ]


def _per_class(analysis: DetectionAnalysis, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    truth, curves = analysis.truth, analysis.curves
    low, high = interval(analysis.values, analysis.samples)[:, len(AVERAGES) :]
    objects = np.bincount(truth.labels[~truth.ignore], minlength=len(truth.label_map))
    accepted = analysis.detections.scores >= analysis.min_score
    detected = np.bincount(analysis.detections.labels[accepted], minlength=len(objects))
    position = round(analysis.min_score * 100)
    return [
        {
            "ap": scores["per_class"][name],
            "low": plain(low[label]),
            "high": plain(high[label]),
            "ap50": plain(analysis.gains.before[label]),
            "objects": int(objects[label]),
            "images": len(np.unique(truth.image[truth.labels == label])),
            "detections": int(detected[label]),
            "precision": plain(curves.precision[label, position]),
            "recall": plain(curves.recall[label, position]),
            "best_f1": plain(curves.best_f1[label]),
            "best_score": plain(curves.best_score[label]),
        }
        for label, name in enumerate(truth.label_map.names)
    ]


def _errors(analysis: DetectionAnalysis) -> list[dict[str, Any]]:
    """Returns counts and gains of each kind of error, in all and by class."""
    split, truth, detections = analysis.split, analysis.truth, analysis.detections
    num_classes = len(truth.label_map)
    clear = ~analysis.matches.ignored[0]
    accepted = clear & (detections.scores >= analysis.min_score)
    rows = []
    for number, kind in enumerate(KINDS):
        of_kind = split.kinds == number
        counts = [
            np.bincount(detections.labels[of_kind & chosen], minlength=num_classes)
            for chosen in (accepted, clear)
        ]
        rows.append(_error_row(analysis, kind, *counts))
    missed = [truth.labels[~truth.ignore & ~analysis.found], truth.labels[split.missed]]
    counts = [np.bincount(labels, minlength=num_classes) for labels in missed]
    return [*rows, _error_row(analysis, MISSED, *counts)]


def _error_row(
    analysis: DetectionAnalysis,
    kind: str,
    accepted: Int64[np.ndarray, " K"],
    all_scores: Int64[np.ndarray, " K"],
) -> dict[str, Any]:
    after = analysis.gains.after[kind]
    return {
        "kind": kind,
        "gain": analysis.gains.mean(kind),
        "class_gains": plain(np.maximum(after - analysis.gains.before, 0)),
        "accepted": plain(accepted),
        "all_scores": plain(all_scores),
    }


def _groups(analysis: DetectionAnalysis) -> list[dict[str, Any]]:
    truth, groups = analysis.truth, analysis.groups
    wanted = ~truth.ignore
    rows = []
    for title, names, group in (
        ("size", SIZES, groups.size),
        ("objects in the image", NEIGHBOURS, groups.neighbours),
        ("overlap with another object", OVERLAPS, groups.overlap),
    ):
        found, of_all = found_by_group(
            group[wanted],
            analysis.found[wanted],
            truth.labels[wanted],
            len(names),
            len(truth.label_map),
        )
        rows.append(
            {"title": title, "names": list(names), "found": plain(found), "all": plain(of_all)}
        )
    rows[1]["ap"] = plain(np.array(analysis.by_number))
    return rows


def _calibration(analysis: DetectionAnalysis) -> dict[str, Any]:
    counted = analysis.matches.counted & ~analysis.matches.ignored[0]
    labels, scores = analysis.detections.labels, analysis.detections.scores
    right = analysis.matches.right[0]
    by_class = [
        _plain_calibration(calibrate(scores[rows], right[rows]))
        for rows in (counted & (labels == label) for label in range(len(analysis.truth.label_map)))
    ]
    return {**_plain_calibration(analysis.calibration), "by_class": by_class}


def _plain_calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "counts": plain(calibration.counts),
        "scores": plain(calibration.scores, 3),
        "right": plain(calibration.right, 3),
        "error": plain(calibration.error),
        "bias": plain(calibration.bias),
    }


def image_boxes(analysis: DetectionAnalysis, index: int) -> dict[str, Any]:
    """Returns the objects and the best detections of one image.

    Objects are [label, x_min, y_min, x_max, y_max, ignored]; detections are [label, x_min, y_min,
    x_max, y_max, score, kind, position of the object that it found or meant, or -1].
    """
    truth, detections = analysis.truth, analysis.detections
    first, last = int(truth.starts[index]), int(truth.starts[index + 1])
    rows = np.flatnonzero(detections.image == index)
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    shown = detections.scores[rows] >= min(0.05, analysis.min_score)
    return {
        "objects": [
            [int(truth.labels[row]), *_corners(truth.boxes[row]), int(truth.ignore[row])]
            for row in range(first, last)
        ],
        "detections": [
            [
                int(detections.labels[row]),
                *_corners(detections.boxes[row]),
                plain(detections.scores[row], 3),
                _kind(analysis, row),
                _partner(analysis, row, first),
            ]
            for row in rows[shown][:_SHOWN].tolist()
        ],
    }


def _corners(box: Float64[np.ndarray, " 4"]) -> list[float]:
    return plain(box, 1)


def _kind(analysis: DetectionAnalysis, row: int) -> str:
    if analysis.matches.ignored[0, row]:
        return ON_CROWD
    kind = int(analysis.split.kinds[row])
    return RIGHT if kind == NO_ERROR else KINDS[kind]


def _partner(analysis: DetectionAnalysis, row: int, first: int) -> int:
    for objects in (analysis.matches.objects[0], analysis.split.objects):
        if objects[row] != NO_OBJECT:
            return int(objects[row]) - first
    return -1


def class_rows(
    analysis: DetectionAnalysis, rows: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " N"]
) -> list[Int64[np.ndarray, " _"]]:
    """Returns some rows split by class, each class in their order."""
    of_class: Bool[np.ndarray, "K n"] = (
        labels[rows][None] == np.arange(len(analysis.truth.label_map))[:, None]
    )
    return [rows[chosen] for chosen in of_class]
