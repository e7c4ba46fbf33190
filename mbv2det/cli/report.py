"""What the commands show a person: tables and pictures."""

from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import read_sample
from mbv2det.deploy.predictor import Predictor
from mbv2det.drawing import (
    add_caption,
    add_legend,
    class_colours,
    draw_detections,
    mask_legend,
    mask_palette,
    side_by_side,
    tint_labels,
)
from mbv2det.labels import LabelMap
from mbv2det.structures import Detections, Sample, SampleKey, SegmentationMap
from mbv2det.tasks import ClassificationTask, DetectionTask, SegmentationTask

# Detections drawn in pictures; tables and files use the threshold of the weights.
PICTURE_SCORE = 0.3

_CLASS_METRIC = {DetectionTask.name: "AP", SegmentationTask.name: "IoU"}


def print_results(metrics: Mapping[str, Any]) -> None:
    """The averages of every task and its classes, on standard output."""
    console = Console()
    for task, block in metrics.items():
        if isinstance(block, Mapping):
            averages = {k: v for k, v in block.items() if v is None or isinstance(v, float)}
            console.print(_averages(f"{task}, {block['images']} images", averages))
            console.print(_classes(block["per_class"], _CLASS_METRIC[task]))


def _averages(title: str, averages: Mapping[str, float | None], columns: int = 6) -> Table:
    """Names over values, `columns` to a row: narrow enough for any terminal."""
    table = Table(title=title, show_header=False)
    names = list(averages)
    for start in range(0, len(names), columns):
        row = names[start : start + columns]
        table.add_row(*(f"[bold]{name}" for name in row))
        table.add_row(*(_cell(averages[name]) for name in row), end_section=True)
    return table


def _classes(per_class: Mapping[str, float | None], metric: str) -> Table:
    table = Table("class", Column(metric, justify="right"))
    for name, value in per_class.items():
        table.add_row(name, _cell(value))
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_pictures(
    predictor: Predictor, annotations: Annotations, folder: Path, most: int = 12
) -> None:
    """Truth and prediction side by side, for images spread over the split."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = evenly_spaced(len(annotations), most)
    places = picture_paths([annotations.path(index) for index in chosen], folder, ".png")
    for index, place in zip(
        track(chosen, "Drawing predictions", transient=True), places, strict=True
    ):
        sample = read_sample(annotations, SampleKey(0, index))
        found = predictor([sample.image])[0]
        truth_beside(sample, found, predictor.info.label_maps).save(place)


def picture_paths(files: Sequence[Path], folder: Path, suffix: str) -> list[Path]:
    """Where each picture goes; equal names from different folders are numbered."""
    paths: dict[Path, None] = {}  # in order
    for file in files:
        names = chain([file.stem], (f"{file.stem}_{n}" for n in count(2)))
        paths[next(p for name in names if (p := folder / f"{name}{suffix}") not in paths)] = None
    return list(paths)


def truth_beside(
    sample: Sample, found: Mapping[str, Any], labels: Mapping[str, LabelMap]
) -> Image.Image:
    """The annotation on the left, what was found on the right."""
    truth: dict[str, Any] = {}
    if sample.instances is not None and DetectionTask.name in found:
        boxes, classes = sample.instances.boxes, sample.instances.labels
        truth[DetectionTask.name] = Detections(
            torch.from_numpy(boxes), torch.ones(len(boxes)), torch.from_numpy(classes)
        )
    if sample.mask is not None and SegmentationTask.name in found:
        truth[SegmentationTask.name] = SegmentationMap(torch.from_numpy(sample.mask))
    left = draw_found(sample.image, truth, labels, show_scores=False)
    return side_by_side([left, draw_found(sample.image, found, labels)])


def draw_found(
    image: np.ndarray,
    found: Mapping[str, Any],
    labels: Mapping[str, LabelMap],
    min_score: float = PICTURE_SCORE,
    show_scores: bool = True,
) -> Image.Image:
    """The image with what every task found: tints and a legend, boxes with names, a caption."""
    picture = Image.fromarray(image)
    segmentation = found.get(SegmentationTask.name)
    if segmentation is not None:
        mask, mask_labels = segmentation.labels.cpu().numpy(), labels[SegmentationTask.name]
        picture = tint_labels(picture, mask, mask_labels)
    if DetectionTask.name in found:
        label_map = labels[DetectionTask.name]
        masks = labels.get(SegmentationTask.name)
        colours = class_colours(label_map, None if masks is None else mask_palette(masks))
        picture = draw_detections(
            picture, found[DetectionTask.name], label_map, colours, min_score, show_scores
        )
    if segmentation is not None:
        picture = add_legend(picture, mask_legend(mask, mask_labels))
    classes = found.get(ClassificationTask.name)
    if classes is not None:
        names = labels[ClassificationTask.name].names
        rows = zip(classes.labels.tolist(), classes.scores.tolist(), strict=True)
        picture = add_caption(picture, [f"{names[label]} {score:.2f}" for label, score in rows])
    return picture
