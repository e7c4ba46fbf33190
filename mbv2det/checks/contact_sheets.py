"""Pages of pictures with their annotation, to look through a data set."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

from mbv2det.checks.finding import Finding
from mbv2det.console import track
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import read_sample
from mbv2det.drawing import add_caption
from mbv2det.errors import DataError
from mbv2det.structures import SampleKey
from mbv2det.tasks.task import Prediction, TrainableTask, draw_prediction

_COLUMNS, _ROWS = 4, 5
_CELL = (320, 320)  # width and height of a picture, its caption included
_GAP = 8
_CAPTION = 18  # pixels: height of a line of text
_CHARACTERS = 40  # that fit into the width of a cell
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
    indices = track(list(chosen), f"Drawing {name}")
    cells = _draw_all(split, tasks, indices)
    pages = 0
    while page := list(islice(cells, _COLUMNS * _ROWS)):
        pages += 1
        sheet(page, _COLUMNS, _CELL).save(folder / f"{name}_{pages:02d}.jpg", quality=90)
    return pages


def _draw_all(
    split: Annotations, tasks: Sequence[TrainableTask], indices: Iterable[int]
) -> Iterator[Image.Image]:
    """Yields the picture of each image; a grey one with the reason if it cannot be read."""
    for index in indices:
        name = split.path(index).name
        try:
            sample = read_sample(split, SampleKey(0, index))
        except DataError:
            yield _with_caption(Image.new("RGB", _CELL, "grey"), [name, "cannot be used"])
            continue
        annotation = Prediction(**{task.name: task.annotation_of(sample) for task in tasks})
        picture = draw_prediction(sample.image, annotation, tasks, show_scores=False)
        yield _with_caption(picture, [name])


def _with_caption(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Returns a picture of the size of a cell, with text that is not scaled with it."""
    width, height = _CELL
    picture.thumbnail((width, height - _CAPTION * len(lines)))
    strip = Image.new("RGB", (width, picture.height), "white")
    strip.paste(picture, (0, 0))
    return add_caption(strip, [_shortened(line) for line in lines])


def _shortened(line: str) -> str:
    """Returns a line that fits into a cell, without the middle of a long name."""
    if len(line) <= _CHARACTERS:
        return line
    half = (_CHARACTERS - 3) // 2
    return f"{line[:half]}...{line[-half:]}"


def sheet(
    cells: Sequence[Image.Image], columns: int, size: tuple[int, int] | None = None
) -> Image.Image:
    """Returns pictures in rows on a white page.

    Args:
        cells: Pictures; at least one.
        columns: Pictures in a row.
        size: Largest width and height of a picture, which is shrunk to it; None to shrink none.
    """
    if size is not None:
        for cell in cells:
            cell.thumbnail(size)
    width, height = size or (max(c.width for c in cells), max(c.height for c in cells))
    rows = -(-len(cells) // columns)
    page = Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white"
    )
    for position, cell in enumerate(cells):
        row, column = divmod(position, columns)
        page.paste(cell, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return page
