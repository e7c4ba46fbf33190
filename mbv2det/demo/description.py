"""What the page knows of the network: its classes, colours, thresholds and outputs."""

from pathlib import Path
from typing import Any

from mbv2det.deploy.graph import INPUT, GraphInfo
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.drawing import class_colours, mask_palette
from mbv2det.labels import BACKGROUND
from mbv2det.weights.header import WeightsInfo


def describe(name: str, network: Path, info: WeightsInfo, graph: GraphInfo) -> dict[str, Any]:
    """Returns the description as plain values.

    Args:
        name: Name of the model, for the title of the page.
        network: The ONNX file.
        info: Header of the weights.
        graph: Description of the file.
    """
    parts = {
        "detection": _detection(info, graph),
        "segmentation": _segmentation(info),
        "classification": _classification(info),
    }
    return {
        "name": name,
        "file": network.name,
        "bytes": network.stat().st_size,
        "input": INPUT,
        "network": info.model.backbone.name,
        "size": list(info.preprocess.size),
        "precision": graph.precision,
        **{task: part for task, part in parts.items() if part is not None},
    }


def _detection(info: WeightsInfo, graph: GraphInfo) -> dict[str, Any] | None:
    label_map = info.label_maps.get("detection")
    if label_map is None:
        return None
    masks = info.label_maps.get("segmentation")
    colours = class_colours(label_map, None if masks is None else mask_palette(masks))
    return {
        "classes": [
            {"name": name, "id": id_, "colour": colour}
            for name, id_, colour in zip(label_map.names, label_map.ids, colours, strict=True)
        ],
        "suppressed": graph.choices["detection"] == "inside",
        "score_threshold": info.eval.score_threshold,
        "nms_iou": info.eval.nms_iou,
        "max_detections": info.eval.max_detections,
        "candidates_per_class": SSDPostprocess.candidates_per_class,
    }


def _segmentation(info: WeightsInfo) -> dict[str, Any] | None:
    label_map = info.label_maps.get("segmentation")
    if label_map is None:
        return None
    colours = mask_palette(label_map).values()
    return {
        "classes": [
            {"name": name, "id": id_, "colour": colour, "background": name == BACKGROUND}
            for name, id_, colour in zip(label_map.names, label_map.ids, colours, strict=True)
        ]
    }


def _classification(info: WeightsInfo) -> dict[str, Any] | None:
    label_map = info.label_maps.get("classification")
    return None if label_map is None else {"classes": [{"name": name} for name in label_map.names]}
