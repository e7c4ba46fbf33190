import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbv2det.data.objects import Objects
from mbv2det.labels import LabelMap
from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.scored_boxes import ScoredBoxes

FIXTURE = Path(__file__).parents[2] / "shared/data/coco_ap_fixture"
COLUMNS = ("boxes", "labels", "areas", "crowd", "difficult")
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def label_map(names):
    return LabelMap.of_masks(tuple(names))


def random_split(seed, num_images=12, num_classes=4, objects=60, detections=250):
    """Returns objects, and detections half of which are near one; class 0 is not annotated.

    Coordinates are whole numbers, so that conversions of the box format are exact.
    """
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 300, (objects, 2))
    boxes = np.concatenate([corner, corner + rng.integers(4, 160, (objects, 2))], 1).astype(float)
    labels = rng.integers(1, num_classes, objects)
    image = rng.integers(0, num_images, objects)
    truth = Objects.group_by_image(
        label_map(f"class {k}" for k in range(num_classes)),
        num_images,
        image,
        boxes=boxes,
        labels=labels,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1) * rng.uniform(0.4, 1, objects),
        crowd=rng.random(objects) < 0.15,
        difficult=rng.random(objects) < 0.15,
    )
    near = rng.integers(0, objects, detections)
    far = rng.random(detections) < 0.5
    shifted = boxes[near] + rng.integers(-6, 7, (detections, 4))
    detections = ScoredBoxes(
        image=np.where(far, rng.integers(0, num_images, detections), image[near]),
        boxes=np.concatenate([shifted[:, :2], np.maximum(shifted[:, 2:], shifted[:, :2] + 1)], 1),
        scores=rng.integers(0, 20, detections) / 20,
        labels=np.where(far, rng.integers(0, num_classes, detections), labels[near]),
    )
    return truth, detections


def rows(detections, which):
    """Returns some rows of the detections."""
    return replace(detections, **{name: column[which] for name, column in vars(detections).items()})


def backwards(detections):
    """Returns the last image first, each image's own rows in the order they were."""
    return rows(detections, np.argsort(-detections.image, kind="stable"))


def first_images(truth, num_images):
    """Returns the ground truth of a split that has its first images only."""
    some = truth.of_images(np.arange(num_images))
    starts, annotated = some.starts[: num_images + 1], some.annotated[:num_images]
    return replace(some, starts=starts, annotated=annotated)


def regrouped(truth, order):
    """Returns the same ground truth built from rows in another order."""
    columns = {name: getattr(truth, name)[order] for name in COLUMNS}
    image = truth.image[order]
    return Objects.group_by_image(truth.label_map, truth.num_images, image, **columns)


def pycocotools_ap(annotation, results):
    """Returns the twelve numbers and the AP of each category, -1 where there is no ground truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotation
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"][..., 0, 2]
    per_class = [p[p > -1].mean() if (p > -1).any() else -1 for p in np.moveaxis(precision, 2, 0)]
    return dict(zip(NAMES, evaluator.stats, strict=True)), per_class


def as_coco(truth, detections):
    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations = [
        {
            "id": n + 1,
            "image_id": int(truth.image[n]),
            "category_id": int(truth.labels[n]),
            "bbox": xywh(truth.boxes[n].tolist()),
            "area": float(truth.areas[n]),
            "iscrowd": int(truth.crowd[n] or truth.difficult[n]),
        }
        for n in range(len(truth))
    ]
    results = [
        {
            "image_id": int(detections.image[n]),
            "category_id": int(detections.labels[n]),
            "bbox": xywh(detections.boxes[n].tolist()),
            "score": float(detections.scores[n]),
        }
        for n in range(len(detections))
    ]
    annotation = {
        "info": {},
        "images": [{"id": i} for i in range(truth.num_images)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(truth.label_map.names)],
        "annotations": annotations,
    }
    return annotation, results


def assert_equal_to_pycocotools(result, annotation, results):
    # 1e-9: the same arithmetic in double precision, up to the order of sums.
    overall, per_class = pycocotools_ap(annotation, results)
    result_or_minus_1 = {name: -1 if result[name] is None else result[name] for name in NAMES}
    assert result_or_minus_1 == pytest.approx(overall, abs=1e-9)
    result_per_class = [-1 if ap is None else ap for ap in result["per_class"].values()]
    assert result_per_class == pytest.approx(per_class, abs=1e-9)


def read_fixture():
    """Returns the published example: COCO's own files, and the same as flat arrays."""
    if not FIXTURE.exists():
        pytest.skip(f"the published COCO example is not at {FIXTURE}")
    annotation = json.loads((FIXTURE / "instances_val2014_100.json").read_text())
    results = json.loads((FIXTURE / "instances_val2014_fakebbox100_results.json").read_text())
    index = {i: n for n, i in enumerate(sorted(image["id"] for image in annotation["images"]))}
    label = {category["id"]: n for n, category in enumerate(annotation["categories"])}

    def column(rows, key):
        return np.array([row[key] for row in rows])

    def shared_columns(rows):
        xywh = column(rows, "bbox").astype(float)
        return {
            "image": np.array([index[row["image_id"]] for row in rows]),
            "labels": np.array([label[row["category_id"]] for row in rows]),
            "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
        }

    objects = annotation["annotations"]
    truth = Objects.group_by_image(
        label_map(category["name"] for category in annotation["categories"]),
        len(index),
        areas=column(objects, "area").astype(float),
        crowd=column(objects, "iscrowd").astype(bool),
        **shared_columns(objects),
    )
    detections = ScoredBoxes(
        scores=column(results, "score").astype(float), **shared_columns(results)
    )
    return annotation, results, truth, detections


def test_published_example_gives_pycocotools_numbers(capsys):
    annotation, results, truth, detections = read_fixture()
    ours = coco_ap(truth, detections)
    assert capsys.readouterr() == ("", "")
    published = [0.5046, 0.6970, 0.5730, 0.5856, 0.5194, 0.5014, 0.3868, 0.5937, 0.5954]
    assert [ours[name] for name in NAMES[:9]] == pytest.approx(published, abs=5e-5)
    assert_equal_to_pycocotools(ours, annotation, results)


def assert_equal_backends(truth, detections):
    fast = coco_ap(truth, detections)
    slow = coco_ap(truth, detections, backend="pycocotools")
    assert list(fast) == list(slow)
    # 1e-12: the same arithmetic in double precision, up to the order of sums; None equals None.
    assert slow.pop("per_class") == pytest.approx(fast.pop("per_class"), abs=1e-12)
    assert slow == pytest.approx(fast, abs=1e-12)


def test_backends_agree_on_the_published_example(capsys):
    _, _, truth, detections = read_fixture()
    assert_equal_backends(truth, detections)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(8))
def test_backends_agree_on_random_splits(seed):
    truth, detections = random_split(seed)
    assert_equal_backends(truth, detections)
    assert coco_ap(truth, detections, backend="pycocotools")["per_class"]["class 0"] is None


@pytest.mark.parametrize("num_images", [12, 0])
@pytest.mark.parametrize("any_detection", [True, False])
@pytest.mark.parametrize("any_object", [True, False])
def test_backends_agree_where_one_side_is_empty(any_object, any_detection, num_images):
    truth, detections = random_split(5)
    truth = first_images(truth if any_object else truth.of_images(np.array([99])), num_images)
    assert_equal_backends(truth, detections if any_detection else rows(detections, slice(0)))


@pytest.mark.parametrize("seed", range(8))
def test_random_splits_give_pycocotools_numbers(seed):
    truth, detections = random_split(seed)
    ours = coco_ap(truth, detections)
    assert ours["per_class"]["class 0"] is None
    assert 0 < ours["AP"] < 1
    assert_equal_to_pycocotools(ours, *as_coco(truth, detections))


def test_only_the_hundred_best_detections_per_image_and_class_count():
    truth, detections = random_split(0, num_images=1, num_classes=2, objects=20, detections=400)
    detections = replace(detections, labels=np.ones_like(detections.labels))
    assert_equal_to_pycocotools(coco_ap(truth, detections), *as_coco(truth, detections))


def test_order_of_images_does_not_matter():
    truth, detections = random_split(1)
    by_image = np.argsort(-truth.image, kind="stable")
    same = coco_ap(regrouped(truth, by_image), backwards(detections))
    assert same == coco_ap(truth, detections)


def test_detections_outside_the_split_are_left_out():
    truth, detections = random_split(2)
    fewer = first_images(truth, 7)
    assert coco_ap(fewer, detections) == coco_ap(fewer, rows(detections, detections.image < 7))


def test_difficult_counts_as_crowd():
    truth, detections = random_split(3)
    as_crowd = replace(truth, crowd=truth.ignore, difficult=np.zeros_like(truth.difficult))
    assert coco_ap(truth, detections) == coco_ap(as_crowd, detections)


def test_no_detection_scores_zero_where_there_is_ground_truth():
    truth, detections = random_split(4)
    ours = coco_ap(truth, rows(detections, slice(0)))
    assert [ours[name] for name in NAMES] == [0.0] * 12
    assert list(ours["per_class"].values()) == [None, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("any_found", [True, False])
@pytest.mark.parametrize("num_images", [12, 0])
def test_no_ground_truth_scores_none(any_found, num_images):
    truth, detections = random_split(5)
    truth = first_images(truth.of_images(np.zeros(0, np.int64)), num_images)
    ours = coco_ap(truth, detections if any_found else rows(detections, slice(0)))
    assert [ours[name] for name in NAMES] == [None] * 12
    assert list(ours["per_class"].values()) == [None] * 4


def test_only_ignored_ground_truth_scores_none():
    truth, detections = random_split(6)
    ours = coco_ap(replace(truth, crowd=np.ones_like(truth.crowd)), detections)
    assert [ours[name] for name in NAMES] == [None] * 12


def test_size_range_without_ground_truth_scores_none():
    truth, detections = random_split(7)
    ours = coco_ap(replace(truth, areas=np.full(len(truth), 50.0)), detections)
    assert ours["APs"] is not None
    assert [ours[name] for name in ("APm", "APl", "ARm", "ARl")] == [None] * 4
