"""What the commands show a person: tables and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from mbv2det.data.annotations import Annotations
from mbv2det.data.images import read_image
from mbv2det.deploy.draw import draw_detections, side_by_side
from mbv2det.deploy.predictor import Predictor
from mbv2det.labels import LabelMap
from mbv2det.structures import Detections

# Detections drawn in pictures; tables and files use the threshold of the weights.
PICTURE_SCORE = 0.3


def print_results(metrics: Mapping[str, Any]) -> None:
    """The averages of every task and its classes, on standard output."""
    console = Console()
    for task, block in metrics.items():
        if isinstance(block, Mapping):
            averages = {k: v for k, v in block.items() if not isinstance(v, Mapping)}
            console.print(_averages(f"{task}, {metrics['images']} images", averages))
            console.print(_classes(block["per_class"]))


def _averages(title: str, averages: Mapping[str, float | None], columns: int = 6) -> Table:
    """Names over values, `columns` to a row: narrow enough for any terminal."""
    table = Table(title=title, show_header=False)
    names = list(averages)
    for start in range(0, len(names), columns):
        row = names[start : start + columns]
        table.add_row(*(f"[bold]{name}" for name in row))
        table.add_row(*(_cell(averages[name]) for name in row), end_section=True)
    return table


def _classes(per_class: Mapping[str, float | None]) -> Table:
    table = Table("class", Column("AP", justify="right"))
    for name, value in per_class.items():
        table.add_row(name, _cell(value))
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_pictures(
    predictor: Predictor, annotations: Annotations, folder: Path, count: int = 12
) -> None:
    """Truth and prediction side by side, for images spread over the split."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.unique(np.linspace(0, len(annotations) - 1, count).astype(int)).tolist()
    for index in track(chosen, "Drawing predictions", transient=True):
        image, _ = read_image(annotations.path(index), annotations.size(index))
        picture = truth_beside(image, annotations, index, predictor([image])[0])
        picture.save(folder / f"{annotations.path(index).stem}.png")


def truth_beside(
    image: np.ndarray, annotations: Annotations, index: int, found: Mapping[str, Any]
) -> Image.Image:
    """The annotation on the left, what was found on the right."""
    truth = annotations.instances(index, (image.shape[0], image.shape[1]))
    left = draw_detections(
        image,
        Detections(
            torch.from_numpy(truth.boxes), torch.ones(len(truth)), torch.from_numpy(truth.labels)
        ),
        annotations.labels.names,
        show_scores=False,
    )
    return side_by_side([left, draw_found(image, found, annotations.labels)])


def draw_found(
    image: np.ndarray, found: Mapping[str, Any], labels: LabelMap, min_score: float = PICTURE_SCORE
) -> Image.Image:
    """The image with what every task found."""
    return draw_detections(image, found["detection"], labels.names, min_score)
