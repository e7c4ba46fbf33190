"""COCO's average precision and recall of boxes, computed by faster-coco-eval.

The numbers are pycocotools' own. Notable choices:

* What cannot be measured is None, where pycocotools says -1: a class or a size range without ground
  truth. Ground truth without any detection scores 0.
* Equal scores go by the number of the image, as pycocotools' go by its id. Images numbered in the
  order of their ids give pycocotools' numbers; any other order may move the fourth digit.
* VOC's difficult objects count as crowds, the only kind of object COCO knows that need not be
  found: a detection that lies within one is neither right nor wrong.
"""

from typing import TypedDict

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float64

from mbv2det.metrics.ground_truth import GroundTruth, ScoredBoxes

# Positions along the axes of faster-coco-eval's precision (IoU, recall, class, size, detections)
# and recall (IoU, class, size, detections).
_IOU_50, _IOU_75 = 0, 5
_ANY_SIZE, _SMALL, _MEDIUM, _LARGE = range(4)
_BEST_1, _BEST_10, _BEST_100 = range(3)


class CocoAP(TypedDict):
    """COCO's twelve numbers, 0..1, and the AP of every class."""

    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    per_class: dict[str, float | None]


def coco_ap(truth: GroundTruth, found: ScoredBoxes) -> CocoAP:
    """Compares detections with the ground truth as COCO does.

    AP is the mean over IoU thresholds 0.50, 0.55, ... 0.95, recalls 0.00, 0.01, ... 1.00 and the
    classes that have ground truth; AR is the mean of the highest recalls. Both take the 100 best
    detections of each class in each image, or as many as their name says. Small objects have areas
    up to 32 squared pixels, large ones from 96 squared.

    Args:
        truth: All objects of the images that take part.
        found: Boxes of images outside 0..num_images-1 take no part.

    Source: Lin et al. 2014 (arXiv:1405.0312) and https://cocodataset.org/#detection-eval; a box's
        area for the size ranges is its own, an object's is its `areas` entry.
    """
    evaluator = COCOeval_faster(_annotated(truth), _detected(truth, found), iouType="bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    precision = precision[..., _BEST_100]
    return CocoAP(
        AP=_mean(precision[..., _ANY_SIZE]),
        AP50=_mean(precision[_IOU_50, ..., _ANY_SIZE]),
        AP75=_mean(precision[_IOU_75, ..., _ANY_SIZE]),
        APs=_mean(precision[..., _SMALL]),
        APm=_mean(precision[..., _MEDIUM]),
        APl=_mean(precision[..., _LARGE]),
        AR1=_mean(recall[..., _ANY_SIZE, _BEST_1]),
        AR10=_mean(recall[..., _ANY_SIZE, _BEST_10]),
        AR100=_mean(recall[..., _ANY_SIZE, _BEST_100]),
        ARs=_mean(recall[..., _SMALL, _BEST_100]),
        ARm=_mean(recall[..., _MEDIUM, _BEST_100]),
        ARl=_mean(recall[..., _LARGE, _BEST_100]),
        per_class={
            name: _mean(precision[:, :, label, _ANY_SIZE])
            for label, name in enumerate(truth.class_names)
        },
    )


def _mean(values: Float64[np.ndarray, "*shape"]) -> float | None:
    """The mean of what was measured: pycocotools marks the rest by -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def _annotated(truth: GroundTruth) -> COCO:
    # Ids start at 1 because a match is marked by the id of its partner, and 0 means unmatched.
    columns = zip(
        truth.image.tolist(),
        truth.labels.tolist(),
        _xywh(truth.boxes).tolist(),
        truth.areas.tolist(),
        truth.ignore.tolist(),
        strict=True,
    )
    return _indexed(
        truth,
        [
            {"id": n, "image_id": i, "category_id": k, "bbox": b, "area": a, "iscrowd": int(c)}
            for n, (i, k, b, a, c) in enumerate(columns, start=1)
        ],
    )


def _detected(truth: GroundTruth, found: ScoredBoxes) -> COCO:
    xywh = _xywh(found.boxes)
    columns = zip(
        found.image.tolist(),
        found.labels.tolist(),
        xywh.tolist(),
        (xywh[:, 2] * xywh[:, 3]).tolist(),
        found.scores.tolist(),
        strict=True,
    )
    return _indexed(
        truth,
        [
            {"id": n, "image_id": i, "category_id": k, "bbox": b, "area": a, "score": s}
            for n, (i, k, b, a, s) in enumerate(columns, start=1)
        ],
    )


def _indexed(truth: GroundTruth, annotations: list[dict[str, object]]) -> COCO:
    return COCO(
        {
            "images": [{"id": index} for index in range(truth.num_images)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(truth.class_names)],
            "annotations": annotations,
        }
    )


def _xywh(boxes: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
