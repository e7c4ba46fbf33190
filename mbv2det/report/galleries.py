"""The images that a page shows, chosen from the errors of a model."""

from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from jaxtyping import Int64

from mbv2det.report.detection_analysis import DetectionAnalysis
from mbv2det.report.detection_part import class_rows
from mbv2det.report.error_split import KINDS
from mbv2det.report.plain import plain
from mbv2det.report.segmentation_analysis import SegmentationAnalysis

_FIRST = 24  # entries of all classes together
_OF_CLASS = 3  # entries of each class

Entry = dict[str, Any]
"""An image with what to see in it; `image` is its index in the split, `label` its class or None."""


def detection_galleries(analysis: DetectionAnalysis) -> dict[str, list[Entry]]:
    """Returns the images with most errors, wrong detections by score, missed objects by size."""
    truth, detections, errors = analysis.truth, analysis.detections, analysis.errors
    worst = [
        {"image": int(index), "label": None, "errors": int(errors.by_image[index])}
        for index in errors.worst_images[:_FIRST]
    ]
    wrong = [
        {
            "image": int(detections.image[row]),
            "label": int(detections.labels[row]),
            "score": plain(detections.scores[row], 3),
            "kind": KINDS[int(analysis.split.kinds[row])],
            "box": plain(detections.boxes[row], 1),
        }
        for row in _first(errors.wrong, class_rows(analysis, errors.wrong, detections.labels))
    ]
    image = truth.image
    missed = [
        {
            "image": int(image[row]),
            "label": int(truth.labels[row]),
            "area": plain(truth.areas[row], 0),
            "box": plain(truth.boxes[row], 1),
        }
        for row in _first(errors.missed, class_rows(analysis, errors.missed, truth.labels))
    ]
    return {"worst": worst, "wrong": wrong, "missed": missed}


def segmentation_galleries(analysis: SegmentationAnalysis) -> dict[str, list[Entry]]:
    """Returns the images with the largest share of wrong pixels, of all labels and of each."""
    shares = analysis.wrong
    order = np.argsort(-shares, kind="stable")
    entries = [
        {"image": int(analysis.images[row]), "label": None, "wrong": plain(shares[row])}
        for row in order[:_FIRST]
        if shares[row] > 0
    ]
    for label, of_label in enumerate(analysis.wrong_of_label.T):
        order = np.argsort(-of_label, kind="stable")
        entries += [
            {"image": int(analysis.images[row]), "label": label, "wrong": plain(of_label[row])}
            for row in order[:_OF_CLASS]
            if of_label[row] > 0
        ]
    return {"worst_masks": entries}


def chosen_images(galleries: Iterable[Iterable[Entry]], most: int) -> list[int]:
    """Returns the images of galleries, from each gallery in turn, up to a number."""
    columns = [[entry["image"] for entry in gallery] for gallery in galleries]
    in_turn = chain.from_iterable(zip_longest(*columns))
    return list(dict.fromkeys(index for index in in_turn if index is not None))[:most]


def _first(
    rows: Int64[np.ndarray, " n"], by_class: Iterable[Int64[np.ndarray, " _"]]
) -> Iterator[int]:
    """Yields the first rows of all, then the first of each class that are not among them."""
    first = rows[:_FIRST].tolist()
    yield from first
    for of_class in by_class:
        yield from (row for row in of_class[:_OF_CLASS].tolist() if row not in first)
