"""Sentences that say how good a model is, where it fails and why."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbv2det.report.detection_analysis import DetectionAnalysis
from mbv2det.report.error_split import KINDS, MISSED
from mbv2det.report.intervals import interval
from mbv2det.report.object_groups import SIZES, found_by_group
from mbv2det.report.segmentation_analysis import SegmentationAnalysis

_ENOUGH = 10  # objects from which a class or a size is worth a sentence
_CAUSES = {
    "class": "objects found at the right place but named wrongly",
    "location": "boxes of the right class that fit too badly",
    "both": "boxes that are wrong in class and place",
    "duplicate": "second boxes on objects that are found already",
    "background": "boxes where there is no object",
    MISSED: "objects that are not found at all",
}
_ADVICE = {
    "class": "more training images of the classes that are confused would help most",
    "location": "a larger input or longer training would help most",
    "both": "longer training on more images would help most",
    "duplicate": "a lower eval.nms_iou would help most",
    "background": "more images without such objects would help most",
    MISSED: "more images of such objects, or a larger input for small ones, would help most",
}


def detection_sentences(analysis: DetectionAnalysis, scores: Mapping[str, Any]) -> list[str]:
    """Returns sentences about detections, the most important first."""
    if scores["AP"] is None:
        return ["There are no objects to find, so that nothing can be measured."]
    low, high = interval(analysis.values[:1], analysis.samples[:, :1])[:, 0]
    sentences = [
        f"AP is {scores['AP']:.3f} and AP50 {scores['AP50']:.3f} on {scores['images']} images; the "
        f"95 % interval of AP is {low:.3f} to {high:.3f}."
    ]
    sentences += (
        _largest_gain(analysis),
        _by_size(analysis),
        _by_class(analysis, scores),
        _confused(analysis),
        _threshold(analysis),
        _calibrated(analysis),
    )
    return [sentence for sentence in sentences if sentence]


def _largest_gain(analysis: DetectionAnalysis) -> str:
    if not len(analysis.detections):
        return "Nothing is found: there is not a single detection."
    gain = {kind: analysis.gains.mean(kind) for kind in (*KINDS, MISSED)}
    first, second = sorted(gain, key=lambda kind: -gain[kind])[:2]
    if gain[first] < 0.001:
        return "There is no kind of error whose correction would raise AP50."
    sentence = (
        f"Most is lost to {_CAUSES[first]}: without them AP50 would be {gain[first]:.3f} higher; "
        f"{_ADVICE[first]}."
    )
    if gain[second] >= 0.01:
        sentence += f" Next come {_CAUSES[second]} ({gain[second]:.3f})."
    return sentence


def _by_size(analysis: DetectionAnalysis) -> str:
    truth, wanted = analysis.truth, ~analysis.truth.ignore
    found, of_all = found_by_group(
        analysis.groups.size[wanted],
        analysis.found[wanted],
        np.zeros(int(wanted.sum()), np.int64),
        len(SIZES),
        1,
    )[:, 0]
    enough = np.flatnonzero(of_all >= _ENOUGH)
    if len(truth) == 0 or len(enough) < 2:
        return ""
    share = found / np.maximum(of_all, 1)
    worst, best = (int(enough[rank(share[enough])]) for rank in (np.argmin, np.argmax))
    if share[best] - share[worst] < 0.1:
        return "Objects of all sizes are found about equally often."
    return (
        f"Of the {of_all[best]} {SIZES[best]} objects {share[best]:.0%} are found, of the "
        f"{of_all[worst]} {SIZES[worst]} ones {share[worst]:.0%}."
    )


def _by_class(analysis: DetectionAnalysis, scores: Mapping[str, Any]) -> str:
    names, truth = analysis.truth.label_map.names, analysis.truth
    counts = np.bincount(truth.labels[~truth.ignore], minlength=len(names))
    measured = [
        (scores["per_class"][name], name)
        for name, count in zip(names, counts, strict=True)
        if count >= _ENOUGH and scores["per_class"][name] is not None
    ]
    if len(measured) < 3:
        return ""
    best, worst = max(measured), min(measured)
    return (
        f"Of the classes with at least {_ENOUGH} objects, {best[1]} is found best (AP "
        f"{best[0]:.3f}) and {worst[1]} worst ({worst[0]:.3f})."
    )


def _confused(analysis: DetectionAnalysis) -> str:
    names = analysis.truth.label_map.names
    matrix = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    if matrix.size == 0 or matrix.max() < 3:
        return ""
    row, column = np.unravel_index(matrix.argmax(), matrix.shape)
    return (
        f"Most often confused: {names[row]} is taken for {names[column]} in {matrix[row, column]} "
        f"of {analysis.confusion[row].sum()} cases."
    )


def _threshold(analysis: DetectionAnalysis) -> str:
    wrong, missed = len(analysis.errors.wrong), len(analysis.errors.missed)
    return (
        f"For one lowest score for all classes, {analysis.min_score:.2f} gives the best mean F1: "
        f"{int(analysis.found.sum())} objects are found, {missed} missed, and {wrong} detections "
        "are wrong."
    )


def _calibrated(analysis: DetectionAnalysis) -> str:
    error, bias = analysis.accepted_calibration.error, analysis.accepted_calibration.bias
    if np.isnan(error):
        return ""
    if error < 0.05:
        return (
            f"Above it, scores can be read as probabilities: they differ from the share of right "
            f"detections by {error:.2f} on average."
        )
    direction = "too high" if bias > 0 else "too low"
    return (
        f"Above it, scores are no probabilities: they differ from the share of right detections by "
        f"{error:.2f} on average, and are mostly {direction}."
    )


def segmentation_sentences(
    analysis: SegmentationAnalysis, scores: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Returns sentences about masks, the most important first."""
    if scores["mIoU"] is None:
        return ["There are no masks, so that nothing can be measured."]
    low, high = interval(analysis.values[:1], analysis.samples[:, :1])[:, 0]
    sentences = [
        f"mIoU is {scores['mIoU']:.3f} on {scores['images']} images, and "
        f"{scores['pixel_accuracy']:.1%} of the pixels are right; the 95 % interval of mIoU is "
        f"{low:.3f} to {high:.3f}."
    ]
    measured = [(v, name) for name, v in scores["per_class"].items() if v is not None]
    if len(measured) > 2:
        best, worst = max(measured), min(measured)
        sentences.append(
            f"The best class is {best[1]} (IoU {best[0]:.3f}), the worst {worst[1]} "
            f"({worst[0]:.3f})."
        )
    wrong = analysis.confusion.copy()
    np.fill_diagonal(wrong, 0)
    if wrong.sum():
        row, column = divmod(int(wrong.argmax()), len(names))
        sentences.append(
            f"{wrong[row, column] / wrong.sum():.0%} of the wrong pixels are {names[row]} taken "
            f"for {names[column]}, the most frequent confusion."
        )
    boundary = scores["boundary_IoU"]
    if boundary is not None and boundary < scores["mIoU"] - 0.1:
        sentences.append(
            f"Outlines are less exact than areas: near the contours the IoU is {boundary:.3f}."
        )
    return sentences
