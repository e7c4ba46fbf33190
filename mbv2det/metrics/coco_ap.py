"""COCO's average precision and recall of boxes.

Two libraries compute them to the same numbers: faster-coco-eval, 7 to 9 times faster on 5,000
images, and COCO's own pycocotools. Notable choices:

- A class or a size range without ground truth cannot be measured and gives None, where both
  libraries give -1. Ground truth without any detection gives 0.
- Equal scores are ordered by the index of the image; the libraries order them by its id. Images
  indexed in the order of their ids give the published numbers; any other order may change the
  fourth digit.
- VOC's difficult objects count as crowds, the only objects in COCO that detectors need not detect:
  a detection inside one is neither right nor wrong.
"""

import contextlib
import io
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Float64

from mbv2det.data.objects import Objects
from mbv2det.metrics.scored_boxes import ScoredBoxes

Backend = Literal["faster_coco_eval", "pycocotools"]

# Positions along the axes of the libraries' precision (IoU, recall, class, size, detections) and
# recall (IoU, class, size, detections).
_IOU_50, _IOU_75 = 0, 5
_ANY_SIZE, _SMALL, _MEDIUM, _LARGE = range(4)
_BEST_1, _BEST_10, _BEST_100 = range(3)


class CocoAP(TypedDict):
    """COCO's twelve numbers and the AP of every class, in 0..1; None without ground truth."""

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


def coco_ap(
    truth: Objects, detections: ScoredBoxes, backend: Backend = "faster_coco_eval"
) -> CocoAP:
    """Computes COCO's average precision and recall of detections.

    AP is the mean of the precision over the IoU thresholds 0.50, 0.55, ... 0.95, the recalls 0.00,
    0.01, ... 1.00 and the classes that have ground truth; AR is the mean of the highest recalls.
    Both take the 100 best detections of each class in each image, or as many as their name says.
    Small objects have areas up to 32^2 square pixels, large ones from 96^2.

    Args:
        truth: Ground truth of all images that are evaluated.
        detections: Detections; those outside the images 0..num_images-1 are left out.
        backend: Library that computes the numbers; both give the same ones.

    Source: Lin et al. 2014 (arXiv:1405.0312) and https://cocodataset.org/#detection-eval. For the
        size ranges, the area of a detection is that of its box, the area of an object its `areas`
        entry.
    """
    curves = evaluate(coco_evaluator(truth, detections, backend))
    precision, recall = curves["precision"][..., _BEST_100], curves["recall"]
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
            for label, name in enumerate(truth.label_map.names)
        },
    )


def _mean(values: Float64[np.ndarray, "*shape"]) -> float | None:
    """Returns the mean of the values that were measured; the libraries mark others by -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def coco_evaluator(
    truth: Objects, detections: ScoredBoxes, backend: Backend = "faster_coco_eval"
) -> Any:
    """Returns the library's evaluator (its `COCOeval`), before the evaluation.

    In it, the id of an object or of a detection is its row plus 1: the libraries mark a match by
    the id of its partner, and 0 means unmatched.

    Args:
        truth: Ground truth of all images that are evaluated.
        detections: Detections; those outside the images 0..num_images-1 are left out.
        backend: Library.
    """
    # Imported here: prediction imports this module and needs neither library.
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluator
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluator

    with _silent():
        indexed = []
        for annotations in (_list_objects(truth), _list_detections(detections)):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": index} for index in range(truth.num_images)],
                "categories": [{"id": k, "name": n} for k, n in enumerate(truth.label_map.names)],
                "annotations": annotations,
            }
            coco.createIndex()
            indexed.append(coco)
        return Evaluator(*indexed, iouType="bbox")


def evaluate(evaluator: Any) -> dict[str, Any]:
    """Runs an evaluator; returns the library's results, -1 where there is no ground truth."""
    with _silent():
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval


def _silent() -> contextlib.AbstractContextManager[Any]:
    """Discards what pycocotools prints of its progress."""
    return contextlib.redirect_stdout(io.StringIO())


def _list_objects(truth: Objects) -> list[dict[str, Any]]:
    """Returns the ground truth as COCO's annotations; ids start at 1."""
    columns = zip(
        truth.image.tolist(),
        truth.labels.tolist(),
        _xywh(truth.boxes).tolist(),
        truth.areas.tolist(),
        truth.ignore.tolist(),
        strict=True,
    )
    return [
        {"id": n, "image_id": i, "category_id": k, "bbox": b, "area": a, "iscrowd": int(c)}
        for n, (i, k, b, a, c) in enumerate(columns, start=1)
    ]


def _list_detections(detections: ScoredBoxes) -> list[dict[str, Any]]:
    """Returns the detections as COCO's annotations with scores; ids start at 1."""
    xywh = _xywh(detections.boxes)
    columns = zip(
        detections.image.tolist(),
        detections.labels.tolist(),
        xywh.tolist(),
        (xywh[:, 2] * xywh[:, 3]).tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        {"id": n, "image_id": i, "category_id": k, "bbox": b, "area": a, "score": s}
        for n, (i, k, b, a, s) in enumerate(columns, start=1)
    ]


def _xywh(boxes: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 4"]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
