"""Measured models with planted errors, for the tests of reports: no training is needed."""

from dataclasses import replace

import numpy as np
import torch

from mbv2det.build import build_tasks, trainable
from mbv2det.config import EvalSettings
from mbv2det.data.coco import read_coco
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.data.scenes import ShapesSpec
from mbv2det.data.shapes import make_shapes
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.report.model import MeasuredModel
from mbv2det.report.record import SplitRecord
from mbv2det.structures import Detections, SampleKey, SegmentationMap
from mbv2det.tasks.task import Prediction, metrics_document
from mbv2det.weights.header import WeightsInfo

HEADS = {"detection": SSDLiteConfig(), "segmentation": DeepLabV3Config()}


def shapes_split(folder, num_images=12):
    """Returns the validation split of a small data set of shapes, with boxes and masks."""
    spec = ShapesSpec(num_train=2, num_val=num_images)
    make_shapes(folder / "shapes", spec, show_progress=False)
    root = folder / "shapes"
    return read_coco(root / "annotations/instances_val.json", root / "val", masks=True)


def planted_model(split, folder, name, *, errors, tasks=tuple(HEADS), seed=0, keep=None):
    """Returns a model whose predictions are the annotation with a share of errors.

    Args:
        split: Split of `shapes_split`.
        folder: Where its file of weights is written, which holds nothing but its name.
        name: Stem of the file.
        errors: Share of objects that are missed, moved, named wrongly or found twice.
        tasks: Tasks of the model.
        seed: Seed of the errors.
        keep: Number of detections that are kept of each image; None for all.
    """
    label_maps = {"detection": split.objects.label_map, "segmentation": split.masks.label_map}
    info = WeightsInfo(
        ModelConfig(BackboneConfig(), {task: HEADS[task] for task in tasks}),
        PreprocessSpec((96, 128)),
        {task: label_maps[task] for task in tasks},
    )
    built = trainable(build_tasks(info.model, EvalConfig(), info.label_maps))
    record = SplitRecord(built, split)
    metrics = {task.name: task.metric(split, EvalSettings()) for task in built}
    images = AnnotatedImages(split, Preprocessor(info.preprocess))
    draw = np.random.default_rng(seed)
    for index in range(len(split)):
        batch = collate([images[SampleKey(0, index)]])
        prediction = planted_prediction(split, index, draw, errors)
        rows = torch.arange(len(prediction.detection))[:keep]
        predictions = [replace(prediction, detection=prediction.detection[rows])]
        record.add(predictions, batch)
        for task in built:
            task.update(metrics[task.name], predictions, batch)
    file = folder / f"{name}.safetensors"
    file.write_text(name)
    document = metrics_document({task: metric.compute() for task, metric in metrics.items()})
    return MeasuredModel(file, info, document, record, command="mbv2det report", config="seed: 0\n")


def planted_prediction(split, index, draw, errors):
    """Returns the annotation of an image as a prediction with errors."""
    objects = split.objects
    rows = range(int(objects.starts[index]), int(objects.starts[index + 1]))
    boxes, scores, labels = [], [], []
    for row in rows:
        box, label = objects.boxes[row].copy(), int(objects.labels[row])
        kind = draw.integers(5) if draw.random() < errors else -1
        if kind == 0:
            continue
        if kind == 1:
            box[[0, 2]] += 0.4 * (box[2] - box[0])
        if kind == 2:
            label = (label + 1) % len(objects.label_map)
        if kind == 3:
            boxes, scores, labels = [*boxes, box], [*scores, 0.4], [*labels, label]
        if kind == 4:
            boxes = [*boxes, np.array([0, 0, 12, 12])]
            scores, labels = [*scores, draw.uniform(0.3, 0.8)], [*labels, label]
        boxes, scores, labels = [*boxes, box], [*scores, draw.uniform(0.5, 1)], [*labels, label]
    order = np.argsort(scores)[::-1].copy()
    detections = Detections(
        torch.from_numpy(np.array(boxes).reshape(-1, 4)[order]).float(),
        torch.tensor(scores)[order.tolist()].float(),
        torch.tensor(labels, dtype=torch.int64)[order.tolist()],
    )
    mask = split.mask(index).copy()
    if draw.random() < errors:
        mask[: len(mask) // 2] = 0
    return Prediction(detections, SegmentationMap(torch.from_numpy(mask)))
