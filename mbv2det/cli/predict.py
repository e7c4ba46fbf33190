"""`predict --weights FILE INPUT... --out DIR`: pictures and files of what images show."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from mbv2det.atomic_write import write_json
from mbv2det.cli.report import PICTURE_SCORE, draw_found, picture_paths
from mbv2det.cli.session import console, one_line_errors, say
from mbv2det.data.images import SUFFIXES, read_image
from mbv2det.deploy.predictor import Predictor, load
from mbv2det.drawing import index_image
from mbv2det.errors import ConfigError, DataError
from mbv2det.labels import LabelMap
from mbv2det.structures import Classification, Detections
from mbv2det.tasks import ClassificationTask, DetectionTask, SegmentationTask

_DESCRIPTION = """
Finds objects in images, labels their pixels or names the whole image, as the weights can. Writes to
--out:

  pictures/      each image with boxes, names and scores, tinted by label above a legend
  results.json   boxes in COCO's results format: [x, y, width, height] in pixels of the original
                 image, with the class ids of the data set that the weights were trained on
  masks/         an index PNG for each image, with that data set's values and VOC's palette
  classes.json   the likeliest classes of each image as a whole, with their probabilities

No configuration is needed: the weights file carries all it takes.
"""


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files or folders of them")
    parser.add_argument("--weights", required=True, help=".safetensors or .ckpt file")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument(
        "--min-score",
        type=float,
        default=PICTURE_SCORE,
        help="draw detections from this score up; results.json has all (default %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default %(default)s)")
    options = parser.parse_args(sys.argv[1:])
    predictor = load(options.weights, options.device)
    if not predictor.tasks:
        raise ConfigError(f"--weights: expected a head, got a backbone alone in {options.weights}")
    predict(
        predictor,
        image_files([Path(p) for p in options.inputs]),
        Path(options.out),
        options.min_score,
    )


def image_files(inputs: Sequence[Path]) -> list[Path]:
    """The images among files and folders, folders searched to any depth.

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


def predict(predictor: Predictor, files: Sequence[Path], out: Path, min_score: float) -> None:
    """Predicts every file; those that cannot be read are named at the end.

    Raises:
        DataError: If none could be read.
    """
    tasks, labels = [task.name for task in predictor.tasks], predictor.info.label_maps
    boxes, masks = DetectionTask.name in tasks, SegmentationTask.name in tasks
    classes: dict[str, list[dict[str, Any]]] = {}
    for folder in ("pictures", *(["masks"] if masks else [])):
        (out / folder).mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    pictures = picture_paths(files, out / "pictures", ".jpg")
    for file, picture in zip(track(files, "Predicting", console=console), pictures, strict=True):
        try:
            image, faults = read_image(file)
        except DataError as error:
            unreadable.append(str(error))
            continue
        for fault in faults:
            say(f"{file}: {fault}")
        found = predictor([image])[0]
        draw_found(image, found, labels, min_score).save(picture, quality=92)
        if boxes:
            name = DetectionTask.name
            results += coco_results(picture.stem, found[name], labels[name])
        if masks:
            name = SegmentationTask.name
            mask = index_image(found[name].labels.cpu().numpy(), labels[name])
            mask.save(out / "masks" / f"{picture.stem}.png")
        if ClassificationTask.name in tasks:
            name = ClassificationTask.name
            classes[picture.stem] = likeliest(found[name], labels[name])
    if boxes:
        write_json(out / "results.json", results)
    if classes:
        write_json(out / "classes.json", classes)
    for line in unreadable:
        say(f"left out: {line}")
    if len(unreadable) == len(files):
        raise DataError(f"none of the {len(files)} inputs is a readable image")
    say(f"{len(files) - len(unreadable)} images: {out / 'pictures'}")
    if boxes:
        shown = sum(result["score"] >= min_score for result in results)
        say(
            f"{shown} objects scoring {min_score} or more in the pictures, "
            f"all {len(results)} candidates: {out / 'results.json'}"
        )
    if masks:
        say(f"index PNGs: {out / 'masks'}")
    for stem, best in classes.items():
        say(f"{stem}: " + ", ".join(f"{row['class']} {row['score']:.2f}" for row in best))
    if classes:
        say(f"likeliest classes: {out / 'classes.json'}")


def coco_results(stem: str, found: Detections, labels: LabelMap) -> list[dict[str, Any]]:
    """COCO's results of one image; image_id is the file's stem, as a number where it is one."""
    image_id: int | str = int(stem) if stem.isdecimal() else stem
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": labels.ids[label],
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(score, 5),
        }
        for (x0, y0, x1, y1), score, label in rows
    ]


def likeliest(found: Classification, labels: LabelMap) -> list[dict[str, Any]]:
    """Names and probabilities of one image's classes."""
    rows = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
    return [{"class": labels.names[label], "score": round(score, 5)} for label, score in rows]
