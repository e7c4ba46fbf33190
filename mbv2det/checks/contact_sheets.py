"""Pages of pictures with their annotation, to look through a data set."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image
from rich.progress import track

from mbv2det.checks.finding import Finding
from mbv2det.console import console
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import read_sample
from mbv2det.drawing import add_caption
from mbv2det.errors import DataError
from mbv2det.structures import SampleKey
from mbv2det.tasks.task import Prediction, TrainableTask, draw_prediction

_COLUMNS, _ROWS = 4, 5
_CELL = (320, 320)  # width and height of a picture, its caption included
_GAP = 8
_MOST = 100  # pictures of a split, but for faulty images


def write_sheets(
    split: Annotations,
    tasks: Sequence[TrainableTask],
    faults: Sequence[Finding],
    folder: Path,
    name: str,
    most: int = _MOST,
) -> int:
    """Writes pages of images with faults first, then of images spread evenly over the split.

    Args:
        split: Split to draw.
        tasks: Tasks that draw their annotation.
        faults: Faults of its images.
        folder: Where to write `NAME_01.jpg` and so on; made if needed.
        name: Name of the split.
        most: Number of pictures.

    Returns:
        The number of pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    faulty = dict.fromkeys(fault.index for fault in faults if fault.index >= 0)
    chosen = dict.fromkeys([*list(faulty)[:most], *evenly_spaced(len(split), most)])
    indices = track(list(chosen), f"Drawing {name}", console=console, transient=True)
    cells = _draw_all(split, tasks, indices)
    pages = 0
    while page := list(islice(cells, _COLUMNS * _ROWS)):
        pages += 1
        _sheet(page).save(folder / f"{name}_{pages:02d}.jpg", quality=90)
    return pages


def _draw_all(
    split: Annotations, tasks: Sequence[TrainableTask], indices: Iterable[int]
) -> Iterator[Image.Image]:
    """Yields the picture of each image; a grey one with the reason if it cannot be read."""
    for index in indices:
        caption = [split.path(index).name]
        try:
            sample = read_sample(split, SampleKey(0, index))
        except DataError:
            yield add_caption(Image.new("RGB", _CELL, "grey"), [*caption, "cannot be used"])
            continue
        annotation = Prediction(**{task.name: task.annotation_of(sample) for task in tasks})
        picture = draw_prediction(sample.image, annotation, tasks, show_scores=False)
        yield add_caption(picture, caption)


def _sheet(cells: Sequence[Image.Image]) -> Image.Image:
    width, height = _CELL
    rows = -(-len(cells) // _COLUMNS)
    size = _COLUMNS * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP
    sheet = Image.new("RGB", size, "white")
    for position, cell in enumerate(cells):
        cell.thumbnail(_CELL)
        row, column = divmod(position, _COLUMNS)
        sheet.paste(cell, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return sheet
