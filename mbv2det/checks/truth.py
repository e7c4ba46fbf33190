"""The ground truth, fed through the evaluator as if it were predicted: it must measure 1.0.

A lower number means that no network can reach 1.0 on this split, as its annotation contradicts
itself.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from mbv2det.checks.finding import MEASURED, NOT_PERFECT, Finding
from mbv2det.config import EvalSettings
from mbv2det.console import track
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import collate
from mbv2det.errors import DataError
from mbv2det.geometry import Frame
from mbv2det.structures import IGNORE_INDEX, Sample, SampleKey
from mbv2det.tasks.task import Prediction, TrainableTask

_MOST_MASKS = 200  # masks that are measured: each takes some 20 ms
_ROUNDING = 1e-9  # of a mean of ones


def check_truth(
    split: Annotations, tasks: Sequence[TrainableTask], settings: EvalSettings, name: str
) -> Iterator[Finding]:
    """Measures the ground truth of a split against itself.

    Args:
        split: Split whose images have known sizes; others are left out.
        tasks: Tasks to measure.
        settings: Settings of the metrics.
        name: Name of the split.
    """
    for task in tasks:
        value, images = measure_truth(split, task, settings)
        if value is None:
            continue
        measured = f"{task.monitor} {value:.6g} on {images} of {len(split)} images"
        if value >= 1 - _ROUNDING:
            yield Finding(MEASURED, name, measured)
        else:
            yield Finding(NOT_PERFECT, name, measured, split.name)


def measure_truth(
    split: Annotations, task: TrainableTask, settings: EvalSettings
) -> tuple[float | None, int]:
    """Returns a task's metric of the ground truth, None if there is none, and its images."""
    metric = task.metric(split, settings)
    indices = list(range(len(split)))
    if task.annotation == "masks":
        indices = evenly_spaced(len(split), _MOST_MASKS)
    quiet = len(indices) < _MOST_MASKS
    for index in track(indices, "Measuring the ground truth", quiet=quiet):
        sample = _sample(split, index, task.annotation)
        if sample is not None:
            prediction = Prediction(**{task.name: task.annotation_of(sample)})
            task.update(metric, [prediction], collate([sample]))
    scores = metric.compute()
    return scores[task.monitor], scores["images"]


def _sample(split: Annotations, index: int, annotation: str) -> Sample | None:
    """Returns an annotation with a blank image; None if there is no usable annotation."""
    if annotation == "masks":
        try:
            original = split.mask(index)
        except DataError:
            return None  # found by the check of files
        if original is None:
            return None
        size = (original.shape[0], original.shape[1])
        mask = np.where(original == IGNORE_INDEX, np.uint8(0), original)
        blank = np.zeros((*size, 3), np.uint8)
        return Sample(SampleKey(0, index), blank, Frame(size), None, mask, (), original)
    known_size = split.size(index)
    instances = None if known_size is None else split.instances(index, known_size)
    if instances is None or known_size is None:
        return None
    required = instances[~instances.ignore]
    blank = np.zeros((1, 1, 3), np.uint8)
    return Sample(SampleKey(0, index), blank, Frame(known_size), required)
