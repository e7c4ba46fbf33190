"""The images of a page: thumbnails with the annotation and the predictions of every model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mbv2det.console import log
from mbv2det.data.dataset import read_sample
from mbv2det.errors import DataError
from mbv2det.report.analysis import AnalysedModel
from mbv2det.report.detection_analysis import Progress
from mbv2det.report.detection_part import image_boxes
from mbv2det.report.record import SegmentationRecord, mask_file
from mbv2det.report.thumbnails import data_address, make_thumbnails, shrink
from mbv2det.structures import SampleKey

_BUDGET = 4_800_000  # bytes of all thumbnails; in a page they take a third more


def image_parts(
    models: Sequence[AnalysedModel], indices: Sequence[int], progress: Progress
) -> list[dict[str, Any]]:
    """Returns the images of a split, in order, as far as they can be read and have room.

    Args:
        models: Models that were measured on the split.
        indices: Indices of the images, the most important first.
        progress: Shows a progress bar.
    """
    split = models[0].split
    pictures: dict[int, Image.Image] = {}
    sizes: dict[int, tuple[int, int]] = {}
    masks: dict[int, list[str | None]] = {}
    for index in progress(indices, "Reading images"):
        try:
            sample = read_sample(split, SampleKey(0, index))
            masks[index] = [_truth_mask(model, index) for model in models]
        except DataError as error:
            log(f"no picture: {error}")
            continue
        sizes[index] = (sample.image.shape[0], sample.image.shape[1])
        pictures[index] = shrink(sample.image)
    files = make_thumbnails(pictures, _BUDGET)
    return [
        {
            "index": index,
            "name": split.path(index).name,
            "height": sizes[index][0],
            "width": sizes[index][1],
            "source": data_address(file, "jpeg"),
            "models": [
                _predicted(model, index) | {"truth_mask": mask}
                for model, mask in zip(models, masks[index], strict=True)
            ],
        }
        for index, file in files.items()
    ]


def _predicted(model: AnalysedModel, index: int) -> dict[str, Any]:
    boxes: dict[str, Any] = {"objects": [], "detections": []}
    if model.detection is not None:
        boxes = image_boxes(model.detection, index)
    record = model.model.record.tasks.get("segmentation")
    if not isinstance(record, SegmentationRecord) or index not in record.masks:
        return {**boxes, "mask": None, "labels": []}
    counts = record.confusion[record.images.index(index)]
    return {
        **boxes,
        "mask": data_address(record.masks[index], "png"),
        "labels": np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist(),
    }


def _truth_mask(model: AnalysedModel, index: int) -> str | None:
    if model.segmentation is None:
        return None
    mask = model.split.mask(index)
    label_map = model.model.info.label_maps["segmentation"]
    return None if mask is None else data_address(mask_file(mask, label_map), "png")
