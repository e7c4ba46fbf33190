from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mbv2det.data.objects import Objects
from mbv2det.labels import LabelMap
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.metrics.voc_ap import voc_ap


def split_of(objects, detections, class_names=("cat",), num_images=2):
    """Rows (image, label, box, difficult) and (image, label, box, score) as flat arrays."""
    image, labels, boxes, difficult = zip(*objects, strict=True) if objects else ([],) * 4
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    truth = Objects.group_by_image(
        LabelMap.of_masks(tuple(class_names)),
        num_images,
        np.array(image, dtype=np.int64),
        boxes=boxes,
        labels=np.array(labels, dtype=np.int64),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        difficult=np.array(difficult, dtype=bool),
    )
    image, labels, boxes, scores = zip(*detections, strict=True) if detections else ([],) * 4
    scored_boxes = ScoredBoxes(
        image=np.array(image, dtype=np.int64),
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        scores=np.array(scores, dtype=float),
        labels=np.array(labels, dtype=np.int64),
    )
    return truth, scored_boxes


def devkit_class_ap(objects, detections, threshold=0.5):
    """Computes VOCevaldet.m and VOCap.m line by line, for one class, in inclusive pixels.

    Args:
        objects: Rows (image, box, difficult).
        detections: Rows (image, box, score).
        threshold: The least overlap of a right detection.

    Returns:
        VOC2007's and VOC2010's numbers, or None twice without ground truth.
    """
    num_positive = sum(not difficult for _, _, difficult in objects)
    if not num_positive:
        return None, None
    taken = set()
    num_right = num_wrong = 0
    recall, precision = [], []
    for image, box, _ in sorted(detections, key=lambda row: -row[2]):
        best, matched = -1.0, None
        for n, (other_image, other, _) in enumerate(objects):
            if other_image != image:
                continue
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                union = (
                    (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                    + (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
                    - width * height
                )
                if width * height / union > best:
                    best, matched = width * height / union, n
        if best >= threshold:
            if objects[matched][2]:
                continue
            right = matched not in taken
            taken.add(matched)
        else:
            right = False
        num_right, num_wrong = num_right + right, num_wrong + (not right)
        recall.append(Fraction(num_right, num_positive))
        precision.append(num_right / (num_right + num_wrong))

    eleven = [
        max([p for r, p in zip(recall, precision, strict=True) if r >= Fraction(k, 10)], default=0)
        for k in range(11)
    ]
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    area = sum(
        float(recall[i] - recall[i - 1]) * precision[i]
        for i in range(1, len(recall))
        if recall[i] != recall[i - 1]
    )
    return sum(eleven) / 11, area


def continuous(boxes):
    """Converts inclusive pixel coordinates, counted from 1, to continuous ones."""
    return np.asarray(boxes, dtype=float) - [1, 1, 0, 0]


@pytest.mark.parametrize("threshold", [0.5, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_development_kit(seed, threshold):
    rng = np.random.default_rng(seed)
    num_images, num_classes, num_objects, num_found = 8, 4, 70, 300
    corner = rng.integers(1, 60, (num_objects, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 40, (num_objects, 2))], 1)
    labels, image = rng.integers(1, num_classes, num_objects), rng.integers(0, 8, num_objects)
    difficult = rng.random(num_objects) < 0.2
    near = rng.integers(0, num_objects, num_found)
    found_boxes = boxes[near] + rng.integers(-4, 5, (num_found, 4))
    found_boxes[:, 2:] = np.maximum(found_boxes[:, 2:], found_boxes[:, :2])
    found_labels = np.where(rng.random(num_found) < 0.1, 0, labels[near])
    # Images in ascending order: the kit takes equal scores in the order of its results file.
    order = np.argsort(image[near], kind="stable")
    scores = rng.integers(0, 40, num_found) / 40

    truth, detections = split_of(
        list(zip(image, labels, continuous(boxes), difficult, strict=True)),
        [(image[near[n]], found_labels[n], continuous(found_boxes[n]), scores[n]) for n in order],
        class_names=("absent", "b", "c", "d"),
        num_images=num_images,
    )
    ours = voc_ap(truth, detections, threshold)
    kit = [
        devkit_class_ap(
            [(image[n], boxes[n], difficult[n]) for n in np.flatnonzero(labels == label)],
            [
                (image[near[n]], found_boxes[n], scores[n])
                for n in order
                if found_labels[n] == label
            ],
            threshold,
        )
        for label in range(num_classes)
    ]
    # 1e-12: double precision, differing only in the order of sums.
    assert kit[0] == (None, None)
    assert ours["per_class_07"].pop("absent") is ours["per_class_10"].pop("absent") is None
    assert list(ours["per_class_07"].values()) == pytest.approx([a for a, _ in kit[1:]], abs=1e-12)
    assert list(ours["per_class_10"].values()) == pytest.approx([b for _, b in kit[1:]], abs=1e-12)
    assert ours["VOC07"] == pytest.approx(np.mean([a for a, _ in kit[1:]]), abs=1e-12)
    assert ours["VOC10"] == pytest.approx(np.mean([b for _, b in kit[1:]]), abs=1e-12)
    assert 0 < ours["VOC10"] < 1


def test_hand_worked_example():
    first, second, third = [0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]
    truth, detections = split_of(
        [(0, 0, first, False), (0, 0, second, False), (1, 0, third, False)],
        [
            (0, 0, [0, 0, 10, 8], 0.9),  # overlap 80/100: right
            (0, 0, [0, 0, 10, 10], 0.8),  # the same object again: wrong
            (0, 0, [20, 0, 30, 5], 0.7),  # overlap exactly 50/100: right
            (1, 0, [0, 0, 10, 10], 0.6),  # overlaps nothing: wrong
        ],
    )
    # recall      1/3  1/3  2/3  2/3
    # precision    1   1/2  2/3  1/2
    # Best precision from recall 0, .1, .2, .3 on: 1; from .4, .5, .6 on: 2/3; from .7 on: 0.
    # VOC07 = (4 * 1 + 3 * 2/3) / 11 = 6/11.  VOC10 = 1/3 * 1 + 1/3 * 2/3 = 5/9.
    scores = voc_ap(truth, detections)
    assert scores["VOC07"] == pytest.approx(6 / 11, abs=1e-12)
    assert scores["VOC10"] == pytest.approx(5 / 9, abs=1e-12)


def test_recall_of_exactly_three_tenths_reaches_the_fourth_point():
    boxes = [[20 * n, 0, 20 * n + 10, 10] for n in range(10)]
    truth, detections = split_of(
        [(0, 0, box, False) for box in boxes], [(0, 0, box, 0.5) for box in boxes[:3]]
    )
    # Recall 3/10 at precision 1: the points 0, .1, .2 and .3.
    assert voc_ap(truth, detections)["VOC07"] == pytest.approx(4 / 11, abs=1e-12)


def test_detections_of_difficult_objects_do_not_count():
    easy, hard = [0, 0, 10, 10], [20, 0, 30, 10]
    truth, detections = split_of(
        [(0, 0, easy, False), (0, 0, hard, True)],
        [(0, 0, hard, 0.9), (0, 0, hard, 0.8), (0, 0, easy, 0.7)],
    )
    assert voc_ap(truth, detections)["VOC10"] == 1.0
    as_crowd = replace(truth, crowd=truth.difficult, difficult=truth.crowd)
    assert voc_ap(as_crowd, detections) == voc_ap(truth, detections)


def test_detection_matches_the_object_it_overlaps_most_even_if_difficult():
    easy, hard = [0, 0, 10, 10], [0, 0, 10, 13]
    truth, detections = split_of(
        [(0, 0, easy, False), (0, 0, hard, True)], [(0, 0, [0, 0, 10, 12], 0.9)]
    )
    # Overlaps 100/120 with the easy one, 120/130 with the difficult one: ignored.
    assert voc_ap(truth, detections)["VOC10"] == 0.0


def test_class_of_difficult_objects_only_is_left_out():
    box = [0, 0, 10, 10]
    truth, detections = split_of(
        [(0, 0, box, False), (0, 1, box, True)],
        [(0, 0, box, 0.9), (0, 1, [50, 50, 60, 60], 0.9)],
        class_names=("cat", "dog"),
    )
    scores = voc_ap(truth, detections)
    assert scores["per_class_10"] == {"cat": 1.0, "dog": None}
    assert scores["VOC07"] == pytest.approx(1, abs=1e-12)


def test_order_of_images_does_not_matter():
    box = [0, 0, 10, 10]
    truth, detections = split_of([(0, 0, box, False)], [(1, 0, box, 0.5), (0, 0, box, 0.5)])
    backwards = ScoredBoxes(
        detections.image[::-1], detections.boxes, detections.scores, detections.labels
    )
    assert voc_ap(truth, detections) == voc_ap(truth, backwards)


def test_detections_outside_the_split_are_left_out():
    box = [0, 0, 10, 10]
    truth, detections = split_of(
        [(0, 0, box, False)], [(2, 0, box, 0.9), (-1, 0, box, 0.9), (0, 0, box, 0.5)]
    )
    assert voc_ap(truth, detections)["VOC10"] == 1.0


def test_without_objects_or_detections():
    objects, detections = [(0, 0, [0, 0, 10, 10], False)], [(0, 0, [0, 0, 10, 10], 0.9)]
    nothing = {"VOC07": None, "VOC10": None}
    assert voc_ap(*split_of(objects, []))["VOC07"] == 0.0
    assert voc_ap(*split_of(objects, []))["VOC10"] == 0.0
    for truth, scored_boxes in [split_of([], detections), split_of([], [])]:
        scores = voc_ap(truth, scored_boxes)
        assert {name: scores[name] for name in nothing} == nothing
        assert scores["per_class_07"] == scores["per_class_10"] == {"cat": None}


def test_box_without_area_overlaps_nothing():
    flat = [5, 0, 5, 10]
    truth, detections = split_of([(0, 0, flat, False)], [(0, 0, flat, 0.9)])
    assert voc_ap(truth, detections)["VOC10"] == 0.0
