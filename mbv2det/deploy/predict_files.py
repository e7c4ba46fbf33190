"""The loop of `predict`: read ahead, predict in batches, write results as they come."""

import difflib
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mbv2det.build import load_network
from mbv2det.console import console, log
from mbv2det.deploy.annotated_files import AnnotatedFiles
from mbv2det.deploy.image_predictor import ImagePredictor
from mbv2det.deploy.inputs import find_sources
from mbv2det.deploy.load import load
from mbv2det.deploy.predictor import Predictor
from mbv2det.deploy.read_ahead import read_ahead, read_batches
from mbv2det.deploy.source import InputImage, Source, Unreadable
from mbv2det.deploy.tiles import TiledPredictor, Tiling
from mbv2det.errors import ConfigError, DataError
from mbv2det.tasks.result_files import PICTURES
from mbv2det.tasks.task import Prediction, ResultFiles, Task
from mbv2det.weights.readers import read_model

DEFAULT_FORMATS = (PICTURES, "json", "masks")

_GPU_BATCH = 16
_CPU_BATCH = (
    1  # of one thread, 8 images at once take 1.25 (SSDLite) and 1.8 (DeepLabv3) times as long
)


@dataclass(frozen=True)
class PredictOptions:
    """What the command is asked for.

    Attributes:
        min_score: Lowest score of the detections in pictures, tables and YOLO labels.
        classes: Names of the classes to keep; None keeps all.
        image_size: (height, width) of the network input in place of that of the weights.
        batch_size: Largest number of images that the network sees at once; by default 1 on a
            processor, where batches cost more per image, and 16 on a GPU.
        formats: Kinds of results: "pictures" and the formats of the tasks; by default pictures,
            JSON and index PNGs.
        tiling: How images are cut into tiles for detection; None for whole images.
        device: Device to run on.
    """

    min_score: float = 0.3
    classes: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    batch_size: int | None = None
    formats: tuple[str, ...] | None = None
    tiling: Tiling | None = None
    device: str = "auto"


@dataclass
class Progressed:
    """What a run has done so far.

    Attributes:
        num_images: Number of images and frames that were predicted and written.
        unreadable: One line for each input that was left out.
    """

    num_images: int
    unreadable: list[str]


def predict_files(
    weights: str, inputs: Sequence[str], out: Path, options: PredictOptions
) -> list[str]:
    """Predicts images, folders, globs, videos, cameras and streams, and writes the results.

    What was predicted before an interrupt is in valid files.

    Args:
        weights: Weights file.
        inputs: Inputs as `find_sources` takes them.
        out: Folder to write to; made if needed.
        options: What to write, and how to predict.

    Returns:
        One line for each input that could not be read.

    Raises:
        ConfigError: If the weights have no head or lack a class or format, or if an input does not
            exist.
        DataError: If no input could be read.
        KeyboardInterrupt: After the files have been closed.
    """
    predictor = _load(weights, options)
    if not predictor.tasks:
        raise ConfigError(f"--weights: expected a head, got a backbone alone in {weights}")
    _check_classes(predictor.tasks, options.classes)
    formats = _checked_formats(predictor.tasks, options.formats)
    batch_size = _batch_size(options)
    value_range = predictor.info.preprocess.value_range
    if options.tiling is not None:
        predictor = TiledPredictor(predictor, options.tiling, batch_size)
    sources = find_sources(inputs, out, value_range)
    try:
        out.mkdir(parents=True, exist_ok=True)
        writers = Writers(out, predictor.tasks, formats, options)
    except OSError as error:
        raise ConfigError(f"--out: expected a folder to write to, got {out} ({error})") from None
    return _run(predictor, sources, writers, batch_size)


class Writers:
    """All result files of a run.

    Args:
        out: Folder to write to.
        tasks: Tasks of the model.
        formats: Formats to write.
        options: Classes to keep, and the lowest score that is shown.
    """

    def __init__(
        self, out: Path, tasks: Sequence[Task], formats: Collection[str], options: PredictOptions
    ) -> None:
        self.out = out
        self.tasks = tasks
        self.classes = options.classes
        self.pictures: AnnotatedFiles | None = None
        if PICTURES in formats:
            self.pictures = AnnotatedFiles(out, tasks, options.min_score)
        self.files: list[ResultFiles] = []
        for task in tasks:
            self.files += task.result_files(out, formats, options.min_score)

    def add(self, image: InputImage, prediction: Prediction) -> None:
        """Writes the prediction of an image to all files."""
        if self.classes is not None:
            prediction = select_classes(prediction, self.tasks, self.classes)
        for files in self.files:
            files.add(image.info, prediction)
        if self.pictures is not None:
            self.pictures.add(image, prediction)

    def close(self) -> list[str]:
        """Closes all files; returns lines that tell where they are."""
        lines = [line for files in self.files for line in files.close()]
        return lines if self.pictures is None else [*self.pictures.close(), *lines]


def select_classes(
    prediction: Prediction, tasks: Sequence[Task], names: Collection[str]
) -> Prediction:
    """Returns a prediction without the classes of other names."""
    parts: dict[str, Any] = {}
    for task in tasks:
        part = getattr(prediction, task.name)
        parts[task.name] = None if part is None else task.select(part, names)
    return replace(prediction, **parts)


def _run(
    predictor: ImagePredictor,
    sources: Sequence[Source],
    writers: Writers,
    batch_size: int,
) -> list[str]:
    done = Progressed(0, [])
    started = time.perf_counter()
    try:
        with closing(read_ahead(read_batches(sources, batch_size))) as batches:
            _predict_batches(predictor, _with_progress(batches, sources), writers, done)
    except KeyboardInterrupt:
        writers.close()
        log(f"interrupted: the results of {done.num_images} images are complete in {writers.out}")
        raise
    except BaseException:
        writers.close()
        raise
    lines = writers.close()
    seconds = time.perf_counter() - started
    for line in done.unreadable:
        log(f"left out: {line}")
    if done.num_images == 0:
        raise DataError(f"none of the {len(done.unreadable)} inputs is a readable image")
    for line in lines:
        log(line)
    speed = done.num_images / seconds
    log(f"{done.num_images} images in {seconds:.1f} s ({speed:.1f} images/s, files included)")
    if done.unreadable:
        log(f"{len(done.unreadable)} inputs could not be read and are left out")
    return done.unreadable


def _predict_batches(
    predictor: ImagePredictor,
    batches: Iterator[list[InputImage | Unreadable]],
    writers: Writers,
    done: Progressed,
) -> None:
    for batch in batches:
        images = [item for item in batch if isinstance(item, InputImage)]
        done.unreadable += [item.reason for item in batch if isinstance(item, Unreadable)]
        predictions = predictor([image.pixels for image in images]) if images else []
        for image, prediction in zip(images, predictions, strict=True):
            for fault in image.faults:
                log(f"{image.info.file_name}: {fault}")
            writers.add(image, prediction)
            done.num_images += 1


def _with_progress(
    batches: Iterator[list[InputImage | Unreadable]], sources: Sequence[Source]
) -> Iterator[list[InputImage | Unreadable]]:
    """Yields the batches and shows how many images are done."""
    counts = [source.num_images() for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    columns = (
        TextColumn("Predicting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        bar = progress.add_task("", total=total, speed="")
        for batch in batches:
            yield batch
            progress.advance(bar, len(batch))
            speed = progress.tasks[0].completed / (time.perf_counter() - started)
            progress.update(bar, speed=f"{speed:.1f} images/s")


def _load(weights: str, options: PredictOptions) -> ImagePredictor:
    """Returns the predictor of a weights file, at another input size where one is asked for."""
    if options.image_size is None:
        return load(weights, device=options.device)
    source = read_model(weights)
    info = replace(source.info, preprocess=replace(source.info.preprocess, size=options.image_size))
    model, _ = load_network(replace(source, info=info))
    return Predictor.of_model(model, info, options.device)


def _batch_size(options: PredictOptions) -> int:
    """Returns the size of batches that is asked for, or one that suits the device."""
    if options.batch_size is not None:
        return options.batch_size
    on_gpu = torch.cuda.is_available() if options.device == "auto" else options.device != "cpu"
    return _GPU_BATCH if on_gpu else _CPU_BATCH


def _check_classes(tasks: Sequence[Task], classes: Sequence[str] | None) -> None:
    """Refuses names of classes that no task has."""
    known = list(dict.fromkeys(name for task in tasks for name in task.label_map.names))
    for name in classes or ():
        if all(task.label_map.find(name) is None for task in tasks):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise ConfigError(
                f"--classes: expected some of the {len(known)} classes of the weights ({shown}), "
                f"got {name!r}{hint}"
            )


def _checked_formats(tasks: Sequence[Task], formats: Sequence[str] | None) -> Sequence[str]:
    """Returns the formats to write; refuses those that no task of the weights has."""
    known = [PICTURES, *(name for task in tasks for name in task.formats)]
    for name in formats or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"--formats: expected some of {', '.join(dict.fromkeys(known))}, which these "
                f"weights can write, got {name!r}{hint}"
            )
    return DEFAULT_FORMATS if formats is None else formats
