import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_coco_ap import as_coco, random_split, read_fixture

from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.coco_matches import IOU_THRESHOLDS, coco_matches
from mbv2det.metrics.overlaps import NO_OBJECT
from mbv2det.report.ranking import average_precision, rank


def pycocotools_matches(truth, detections):
    """Returns object and ignore flag of each detection at every threshold, by the official tool."""
    annotation, results = as_coco(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = annotation
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluator.evaluate()
    objects = np.full((10, len(detections)), NO_OBJECT)
    ignored = np.zeros(objects.shape, bool)
    for image in evaluator.evalImgs:
        if image is None or image["aRng"] != evaluator.params.areaRng[0]:
            continue
        rows = np.array(image["dtIds"], int) - 1
        objects[:, rows] = image["dtMatches"].astype(int) - 1
        ignored[:, rows] = image["dtIgnore"]
    return objects, ignored


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_pycocotools(seed):
    truth, detections = random_split(seed)
    matches = coco_matches(truth, detections)
    objects, ignored = pycocotools_matches(truth, detections)
    np.testing.assert_array_equal(matches.objects, objects)
    np.testing.assert_array_equal(matches.ignored, ignored)
    assert ignored.any()
    assert (objects == NO_OBJECT).any()


def test_only_the_hundred_best_of_a_class_in_an_image_count():
    truth, detections = random_split(0, num_images=1, num_classes=2, detections=300)
    matches = coco_matches(truth, detections)
    for label in (0, 1):
        scores = detections.scores[detections.labels == label]
        counted = matches.counted[detections.labels == label]
        assert counted.sum() == min(100, len(scores))
        assert scores[counted].min() >= scores[~counted].max(initial=0)
    assert (matches.objects[:, ~matches.counted] == NO_OBJECT).all()


@pytest.mark.parametrize("split", [*range(4), "published"])
def test_average_precision_of_the_matches_is_cocos(split):
    truth, detections = read_fixture()[2:] if split == "published" else random_split(split)
    matches = coco_matches(truth, detections)
    ours = average_precision(rank(truth, detections, matches), np.ones(truth.num_images))
    coco = coco_ap(truth, detections)
    # 1e-12: the same arithmetic, up to the order of sums.
    expected = [np.nan if ap is None else ap for ap in coco["per_class"].values()]
    np.testing.assert_allclose(ours.mean(axis=1), expected, atol=1e-12)
    assert np.nanmean(ours[:, 0]) == pytest.approx(coco["AP50"], abs=1e-12)
    assert np.nanmean(ours[:, 5]) == pytest.approx(coco["AP75"], abs=1e-12)
    assert matches.thresholds is IOU_THRESHOLDS


def test_without_detections_or_objects_nothing_matches():
    truth, detections = random_split(1)
    nothing = detections[np.zeros(0, np.int64)]
    assert coco_matches(truth, nothing).objects.shape == (10, 0)
    empty = truth.of_images(np.zeros(0, np.int64))
    assert (coco_matches(empty, detections).objects == NO_OBJECT).all()


def test_weights_of_images_are_copies_of_images():
    truth, detections = random_split(2)
    weights = np.random.default_rng(0).integers(0, 3, truth.num_images).astype(float)
    matches = coco_matches(truth, detections)
    weighted = average_precision(rank(truth, detections, matches), weights)
    copies = np.repeat(np.arange(truth.num_images), weights.astype(int))
    copied_truth, copied = copied_images(truth, detections, copies)
    copied_matches = coco_matches(copied_truth, copied)
    ones = np.ones(copied_truth.num_images)
    expected = average_precision(rank(copied_truth, copied, copied_matches), ones)
    np.testing.assert_allclose(weighted, expected, atol=1e-12)


def copied_images(truth, detections, copies):
    """Returns a split whose images are copies of those of another, with distinct scores."""
    objects = [np.flatnonzero(truth.image == image) for image in copies]
    rows = [np.flatnonzero(detections.image == image) for image in copies]
    image = [np.full(len(r), n) for n, r in enumerate(objects)]
    order = np.concatenate(objects)
    copied = type(truth).group_by_image(
        truth.label_map,
        len(copies),
        np.concatenate(image),
        **{
            name: getattr(truth, name)[order]
            for name in ("boxes", "labels", "areas", "crowd", "difficult")
        },
    )
    boxes = detections[np.concatenate(rows)]
    image = np.concatenate([np.full(len(r), n) for n, r in enumerate(rows)])
    return copied, type(boxes)(image, boxes.boxes, boxes.scores, boxes.labels)
