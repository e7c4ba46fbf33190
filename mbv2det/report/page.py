"""The report: one HTML file with everything in it, which needs no network."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from mbv2det.atomic_write import atomic_write
from mbv2det.data.annotations import Annotations
from mbv2det.drawing import class_colours, mask_palette
from mbv2det.report.analysis import AnalysedModel, analyse
from mbv2det.report.comparison import compare_tasks
from mbv2det.report.data_part import data_part
from mbv2det.report.detection_analysis import Progress
from mbv2det.report.detection_part import detection_part
from mbv2det.report.environment import describe_environment, file_hash
from mbv2det.report.galleries import chosen_images, detection_galleries, segmentation_galleries
from mbv2det.report.image_part import image_parts
from mbv2det.report.model import MeasuredModel, model_names
from mbv2det.report.runs import spread_over_runs
from mbv2det.report.segmentation_part import segmentation_part
from mbv2det.report.summary import detection_sentences, segmentation_sentences
from mbv2det.report.training_curves import training_curves

_TEMPLATES = Path(__file__).with_name("templates")
_MOST_IMAGES = 150


def write_report(
    path: Path, models: Sequence[MeasuredModel], progress: Progress, *, seeds: bool = False
) -> None:
    """Writes the report of one model, or of several side by side, as one HTML file.

    Args:
        path: File to write.
        models: Models that were measured on the same split.
        progress: Shows progress bars, such as `rich.progress.track`.
        seeds: Whether the models are runs of one configuration with other seeds.
    """
    content = report_content(models, progress, seeds=seeds)
    with atomic_write(path) as part:
        part.write_text(render(content), encoding="utf-8")


def render(content: Mapping[str, Any]) -> str:
    """Returns the page of a report's content; scripts, styles and pictures are inside."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # "<" would let a class name end the script that holds the data.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("report.html").render(title=content["title"], data=data)


def report_content(
    measured: Sequence[MeasuredModel], progress: Progress, *, seeds: bool = False
) -> dict[str, Any]:
    """Returns everything that the page shows, as plain values; arguments as `write_report`."""
    names = model_names([model.file for model in measured])
    models = [analyse(name, model, progress) for name, model in zip(names, measured, strict=True)]
    galleries = [_galleries(model) for model in models]
    by_turns = [gallery for of_model in galleries for gallery in of_model.values()]
    images = image_parts(models, chosen_images(by_turns, _MOST_IMAGES), progress)
    shown = {image["index"] for image in images}
    split = models[0].split
    return {
        "title": f"{' and '.join(names)} on {_name_of(split)}",
        "made": datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
        "models": [
            _model_part(model, gallery, shown)
            for model, gallery in zip(models, galleries, strict=True)
        ],
        "colours": _colours(models),
        "images": images,
        "comparison": compare_tasks(*models) if len(models) == 2 and not seeds else {},
        "runs": spread_over_runs([model.document for model in measured]) if seeds else {},
        "data": data_part(split),
        "environment": describe_environment(),
    }


def _name_of(split: Annotations) -> str:
    """Returns the name of a split without suffix and the folders of this machine."""
    files = [Path(part).with_suffix("") for part in split.name.split(", ")]
    return ", ".join("/".join(file.parts[-2:]) for file in files)


def _galleries(model: AnalysedModel) -> dict[str, list[dict[str, Any]]]:
    found = {} if model.detection is None else detection_galleries(model.detection)
    masks = {} if model.segmentation is None else segmentation_galleries(model.segmentation)
    return {**found, **masks}


def _model_part(
    model: AnalysedModel, galleries: dict[str, list[dict[str, Any]]], shown: set[int]
) -> dict[str, Any]:
    measured, parts, sentences = model.model, {}, []
    if model.detection is not None:
        scores = model.scores("detection")
        parts["detection"] = detection_part(model.detection, scores)
        sentences += detection_sentences(model.detection, scores)
    if model.segmentation is not None:
        scores = model.scores("segmentation")
        names = model.mask_names
        parts["segmentation"] = segmentation_part(model.segmentation, scores, names)
        sentences += segmentation_sentences(model.segmentation, scores, names)
    return {
        "name": model.name,
        "sentences": sentences,
        **parts,
        "galleries": {
            name: [entry for entry in entries if entry["image"] in shown]
            for name, entries in galleries.items()
        },
        "facts": {
            "file": measured.file.name,
            "SHA-256 of the file": file_hash(measured.file),
            **measured.facts,
            "trained with": measured.info.command,
            "measured with": measured.command,
        },
        "config": measured.config,
        "curves": training_curves(measured.run_folder),
    }


def _colours(models: Sequence[AnalysedModel]) -> dict[str, str]:
    """Returns the colour of every class name, the same in boxes and masks."""
    colours: dict[str, tuple[int, int, int]] = {}
    for model in models:
        label_maps = model.model.info.label_maps
        palette: dict[str, Any] = {}
        if model.segmentation is not None:
            palette = mask_palette(label_maps["segmentation"])
            colours |= palette
        if model.detection is not None:
            label_map = label_maps["detection"]
            colours |= dict(zip(label_map.names, class_colours(label_map, palette), strict=True))
    return {name: f"rgb{colour}" for name, colour in colours.items()}
