import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.ground_truth import GroundTruth, ScoredBoxes

FIXTURE = Path(__file__).parents[2] / "shared/data/coco_ap_fixture"
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def random_split(seed, num_images=12, num_classes=4, objects=60, detections=250):
    """Objects, and detections half of which lie near one; class 0 never annotated, ties frequent.

    Whole coordinates, so that converting between box formats rounds nothing.
    """
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 300, (objects, 2))
    boxes = np.concatenate([corner, corner + rng.integers(4, 160, (objects, 2))], 1).astype(float)
    labels = rng.integers(1, num_classes, objects)
    image = rng.integers(0, num_images, objects)
    truth = GroundTruth(
        class_names=tuple(f"class {k}" for k in range(num_classes)),
        num_images=num_images,
        image=image,
        boxes=boxes,
        labels=labels,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1) * rng.uniform(0.4, 1, objects),
        crowd=rng.random(objects) < 0.15,
        difficult=rng.random(objects) < 0.15,
    )
    near = rng.integers(0, objects, detections)
    far = rng.random(detections) < 0.5
    shifted = boxes[near] + rng.integers(-6, 7, (detections, 4))
    found = ScoredBoxes(
        image=np.where(far, rng.integers(0, num_images, detections), image[near]),
        boxes=np.concatenate([shifted[:, :2], np.maximum(shifted[:, 2:], shifted[:, :2] + 1)], 1),
        scores=rng.integers(0, 20, detections) / 20,
        labels=np.where(far, rng.integers(0, num_classes, detections), labels[near]),
    )
    return truth, found


def rows(flat, which):
    """Some rows of the ground truth or of the detections."""
    columns = {name: column for name, column in vars(flat).items() if hasattr(column, "dtype")}
    return replace(flat, **{name: column[which] for name, column in columns.items()})


def backwards(flat):
    """The last image first, each image's own rows in the order they were."""
    return rows(flat, np.argsort(-flat.image, kind="stable"))


def pycocotools_ap(annotation, results):
    """The twelve numbers and the AP of each category, -1 where there is no ground truth."""
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


def as_coco(truth, found):
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
            "image_id": int(found.image[n]),
            "category_id": int(found.labels[n]),
            "bbox": xywh(found.boxes[n].tolist()),
            "score": float(found.scores[n]),
        }
        for n in range(len(found))
    ]
    annotation = {
        "info": {},
        "images": [{"id": i} for i in range(truth.num_images)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(truth.class_names)],
        "annotations": annotations,
    }
    return annotation, results


def assert_equal_to_pycocotools(ours, annotation, results):
    # 1e-9: the same arithmetic in double precision, up to the order of sums.
    overall, per_class = pycocotools_ap(annotation, results)
    ours_or_minus_1 = {name: -1 if ours[name] is None else ours[name] for name in NAMES}
    assert ours_or_minus_1 == pytest.approx(overall, abs=1e-9)
    ours_per_class = [-1 if ap is None else ap for ap in ours["per_class"].values()]
    assert ours_per_class == pytest.approx(per_class, abs=1e-9)


def read_fixture():
    """The published example: COCO's own files, and the same as flat arrays."""
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
    truth = GroundTruth(
        class_names=tuple(category["name"] for category in annotation["categories"]),
        num_images=len(index),
        areas=column(objects, "area").astype(float),
        crowd=column(objects, "iscrowd").astype(bool),
        difficult=np.zeros(len(objects), dtype=bool),
        **shared_columns(objects),
    )
    found = ScoredBoxes(scores=column(results, "score").astype(float), **shared_columns(results))
    return annotation, results, truth, found


def test_published_example_gives_pycocotools_numbers(capsys):
    annotation, results, truth, found = read_fixture()
    ours = coco_ap(truth, found)
    assert capsys.readouterr() == ("", "")
    published = [0.5046, 0.6970, 0.5730, 0.5856, 0.5194, 0.5014, 0.3868, 0.5937, 0.5954]
    assert [ours[name] for name in NAMES[:9]] == pytest.approx(published, abs=5e-5)
    assert_equal_to_pycocotools(ours, annotation, results)


@pytest.mark.parametrize("seed", range(8))
def test_random_splits_give_pycocotools_numbers(seed):
    truth, found = random_split(seed)
    ours = coco_ap(truth, found)
    assert ours["per_class"]["class 0"] is None
    assert 0 < ours["AP"] < 1
    assert_equal_to_pycocotools(ours, *as_coco(truth, found))


def test_only_the_hundred_best_of_an_image_and_class_count():
    truth, found = random_split(0, num_images=1, num_classes=2, objects=20, detections=400)
    found = replace(found, labels=np.ones_like(found.labels))
    assert_equal_to_pycocotools(coco_ap(truth, found), *as_coco(truth, found))


def test_order_of_images_does_not_matter():
    truth, found = random_split(1)
    assert coco_ap(backwards(truth), backwards(found)) == coco_ap(truth, found)


def test_images_outside_the_split_take_no_part():
    truth, found = random_split(2)
    fewer = replace(truth.of_images(np.arange(7)), num_images=7)
    assert coco_ap(fewer, found) == coco_ap(fewer, rows(found, found.image < 7))


def test_difficult_counts_as_crowd():
    truth, found = random_split(3)
    as_crowd = replace(truth, crowd=truth.ignore, difficult=np.zeros_like(truth.difficult))
    assert coco_ap(truth, found) == coco_ap(as_crowd, found)


def test_no_detection_scores_zero_where_there_is_ground_truth():
    truth, found = random_split(4)
    ours = coco_ap(truth, rows(found, slice(0)))
    assert [ours[name] for name in NAMES] == [0.0] * 12
    assert list(ours["per_class"].values()) == [None, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("any_found", [True, False])
@pytest.mark.parametrize("num_images", [12, 0])
def test_no_ground_truth_scores_none(any_found, num_images):
    truth, found = random_split(5)
    truth = replace(rows(truth, slice(0)), num_images=num_images)
    ours = coco_ap(truth, found if any_found else rows(found, slice(0)))
    assert [ours[name] for name in NAMES] == [None] * 12
    assert list(ours["per_class"].values()) == [None] * 4


def test_only_ignored_ground_truth_scores_none():
    truth, found = random_split(6)
    ours = coco_ap(replace(truth, crowd=np.ones_like(truth.crowd)), found)
    assert [ours[name] for name in NAMES] == [None] * 12


def test_size_range_without_ground_truth_scores_none():
    truth, found = random_split(7)
    ours = coco_ap(replace(truth, areas=np.full(len(truth), 50.0)), found)
    assert ours["APs"] is not None
    assert [ours[name] for name in ("APm", "APl", "ARm", "ARl")] == [None] * 4
