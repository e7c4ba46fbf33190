"""Statistics of the measured data as plain values for a page."""

import itertools
from typing import Any

import numpy as np

from mbv2det.data.annotations import Annotations
from mbv2det.report.plain import plain

_SIDES = (0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Ends of the ranges of the square root of an object's area, in pixels."""
_NUMBERS = (0, 1, 2, 3, 5, 10, 20, 50)
"""First numbers of the ranges of objects in an image."""


def data_part(split: Annotations) -> dict[str, Any]:
    """Returns counts of images and objects, and their distributions."""
    known = split.sizes[(split.sizes > 0).all(axis=1)]
    facts = {"images": f"{len(split):,}"}
    if len(known):
        (low_h, low_w), (high_h, high_w) = known.min(axis=0), known.max(axis=0)
        facts["image sizes (height x width)"] = f"{low_h} x {low_w} to {high_h} x {high_w}"
    charts = []
    if split.objects is not None:
        charts = _object_charts(split, facts)
    if split.masks is not None:
        facts["masks"] = f"{int(split.masks.annotated.sum()):,}"
    return {"facts": facts, "charts": charts}


def _object_charts(split: Annotations, facts: dict[str, str]) -> list[dict[str, Any]]:
    objects = split.objects
    assert objects is not None
    facts["objects"] = f"{int((~objects.ignore).sum()):,}"
    facts["crowds"] = f"{int(objects.crowd.sum()):,}"
    facts["difficult objects"] = f"{int(objects.difficult.sum()):,}"
    sides = np.sqrt(np.maximum(objects.areas[~objects.ignore], 0))
    numbers = np.bincount(objects.image[~objects.ignore], minlength=objects.num_images)
    numbers = numbers[objects.annotated]
    return [
        {
            "title": "Objects by size (square root of the area in pixels)",
            "names": _range_names(_SIDES),
            "counts": plain(np.histogram(sides, (*_SIDES, np.inf))[0]),
        },
        {
            "title": "Images by number of objects",
            "names": ["0", "1", "2", "3-4", "5-9", "10-19", "20-49", "50+"],
            "counts": plain(np.histogram(numbers, (*_NUMBERS, np.inf))[0]),
        },
    ]


def _range_names(ends: tuple[int, ...]) -> list[str]:
    pairs = itertools.pairwise(ends)
    return [*(f"{low}-{high}" for low, high in pairs), f"{ends[-1]}+"]
