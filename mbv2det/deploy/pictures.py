"""Pictures of predictions beside the annotation."""

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from PIL import Image

from mbv2det.console import log, track
from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.dataset import read_sample
from mbv2det.deploy.predictor import Predictor
from mbv2det.drawing import side_by_side
from mbv2det.errors import DataError
from mbv2det.structures import Sample, SampleKey
from mbv2det.tasks.task import Prediction, Task, TrainableTask, draw_prediction


def write_comparisons(
    predictor: Predictor, split: Annotations, folder: Path, most: int = 12
) -> None:
    """Writes pictures of annotation and prediction, for images spread evenly over a split.

    Args:
        predictor: Predicts the images.
        split: Annotations of the split.
        folder: Where to write; made if needed.
        most: Largest number of pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    indices = evenly_spaced(len(split), most)
    names = unique_names([split.path(index) for index in indices])
    progress = track(indices, "Drawing predictions")
    for index, name in zip(progress, names, strict=True):
        try:
            sample = read_sample(split, SampleKey(0, index))
        except DataError as error:
            log(f"no picture: {error}")
            continue
        prediction = predictor([sample.image])[0]
        picture = compare_with_annotation(sample, prediction, predictor.tasks)
        picture.save(folder / f"{name}.png")


def compare_with_annotation(
    sample: Sample, prediction: Prediction, tasks: Sequence[Task]
) -> Image.Image:
    """Returns the annotation of an image on the left, the prediction on the right."""
    trained = [task for task in tasks if isinstance(task, TrainableTask)]
    annotation = Prediction(**{task.name: task.annotation_of(sample) for task in trained})
    pictures = [
        draw_prediction(sample.image, annotation, tasks, show_scores=False),
        draw_prediction(sample.image, prediction, tasks),
    ]
    return side_by_side(pictures)


def unique_names(files: Sequence[Path]) -> list[str]:
    """Returns a name for each file: its stem, with a number where an earlier file has it."""
    return distinct([file.stem for file in files])


def distinct(wanted: Sequence[str]) -> list[str]:
    """Returns the names wanted, with a number (`_2`, ...) where one is taken by an earlier one."""
    names: dict[str, None] = {}  # in order
    for want in wanted:
        candidates = chain([want], (f"{want}_{n}" for n in count(2)))
        names[next(name for name in candidates if name not in names)] = None
    return list(names)
