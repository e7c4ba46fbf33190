"""Predictions for files: annotated pictures, and the result files of every task."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from mbv2det.console import console, log
from mbv2det.data.images import SUFFIXES, read_image
from mbv2det.deploy.load import load
from mbv2det.deploy.pictures import unique_names
from mbv2det.deploy.predictor import Predictor
from mbv2det.errors import ConfigError, DataError
from mbv2det.tasks.task import draw_prediction


def predict_files(
    weights: str, inputs: Sequence[Path], out: Path, *, min_score: float, device: str
) -> None:
    """Predicts images and folders of images.

    Args:
        weights: Weights file.
        inputs: Image files, and folders that are searched to any depth.
        out: Folder to write to.
        min_score: Lowest score of the detections that pictures show.
        device: Device to run on.

    Raises:
        ConfigError: If the weights have no head, or an input does not exist.
        DataError: If no file could be read.
    """
    predictor = load(weights, device=device)
    if not predictor.tasks:
        raise ConfigError(f"--weights: expected a head, got a backbone alone in {weights}")
    write_predictions(predictor, image_files(inputs), out, min_score)


def image_files(inputs: Sequence[Path]) -> list[Path]:
    """The images among files and folders; folders are searched to any depth.

    Raises:
        ConfigError: For an input that does not exist, or if there is no image at all.
    """
    files: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise ConfigError(f"INPUT: expected an image or a folder, found none at {path}")
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            files += [p for p in inside if p.is_file() and p.suffix.lower() in SUFFIXES]
        else:
            files.append(path)
    if not files:
        raise ConfigError(f"INPUT: no images ({', '.join(SUFFIXES)}) in {inputs[0]}")
    return files


def write_predictions(
    predictor: Predictor, files: Sequence[Path], out: Path, min_score: float
) -> None:
    """Predicts every file and writes the results; files that cannot be read are named at the end.

    Raises:
        DataError: If no file could be read.
    """
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    writers = [task.result_files(out, min_score) for task in predictor.tasks]
    unreadable: list[str] = []
    progress = track(files, "Predicting", console=console)
    for file, name in zip(progress, unique_names(files), strict=True):
        try:
            image, faults = read_image(file)
        except DataError as error:
            unreadable.append(str(error))
            continue
        for fault in faults:
            log(f"{file}: {fault}")
        prediction = predictor([image])[0]
        picture = draw_prediction(image, prediction, predictor.tasks, min_score)
        picture.save(pictures / f"{name}.jpg", quality=92)
        for writer in writers:
            writer.add(name, prediction)
    closing = [line for writer in writers for line in writer.close()]
    for line in unreadable:
        log(f"left out: {line}")
    if len(unreadable) == len(files):
        raise DataError(f"none of the {len(files)} inputs is a readable image")
    for line in (f"{len(files) - len(unreadable)} images: {pictures}", *closing):
        log(line)
