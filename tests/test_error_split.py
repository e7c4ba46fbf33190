from dataclasses import replace

import numpy as np
import pytest
from test_coco_ap import label_map, random_split, read_fixture

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.coco_matches import coco_matches
from mbv2det.metrics.overlaps import NO_OBJECT
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.report import ranking
from mbv2det.report.error_split import KINDS, MISSED, NO_ERROR, gains, split_errors

# Computed with tidecv 1.0.1, TIDE's own implementation, at its defaults (IoU 0.5 and 0.1). The
# numbers of errors are in the order of KINDS, then missed. The AP are sums over the classes with
# objects, in per cent: before, after fixing each kind, all wrong detections, all unfound objects.
TIDE = {
    0: (
        (4, 14, 33, 54, 109, 5),
        100.674648,
        (104.912057, 110.806050, 110.535758, 110.774249, 156.168518, 113.556037),
        (238.613861, 125.748549),
    ),
    1: (
        (7, 13, 20, 30, 155, 3),
        90.650920,
        (95.750875, 117.298971, 91.582466, 96.928563, 147.863352, 98.636026),
        (221.782178, 122.104758),
    ),
    2: (
        (6, 21, 24, 53, 107, 3),
        114.363820,
        (119.086160, 134.152617, 122.003491, 127.087533, 161.623008, 122.410581),
        (257.425743, 132.140885),
    ),
    "published": (
        (83, 1, 0, 1, 0, 97),
        4879.579150,
        (6051.832552, 4897.070899, 4879.579150, 4881.021096, 4879.579150, 5454.820574),
        (5398.019802, 6141.953989),
    ),
}


def analysed(truth, detections):
    matches = coco_matches(truth, detections)
    split = split_errors(truth, detections, matches)
    return split, gains(truth, detections, matches, split)


@pytest.mark.parametrize("name", TIDE)
def test_errors_and_gains_are_those_of_tide(name, monkeypatch):
    # TIDE takes the recalls n / 100, COCO those of numpy.linspace, which differ in the last bit.
    monkeypatch.setattr(ranking, "RECALLS", np.arange(101) / 100)
    truth, detections = read_fixture()[2:] if name == "published" else random_split(name)
    # TIDE orders equal scores by the kind of error: here there are none.
    scores = detections.scores - np.arange(len(detections)) * 1e-7
    split, gained = analysed(truth, replace(detections, scores=scores))
    counts, before, after, special = TIDE[name]
    found = np.bincount(split.kinds[split.kinds != NO_ERROR], minlength=len(KINDS))
    assert (*found, split.missed.sum()) == counts
    # 1e-5: the constants have six decimals.
    assert np.nansum(gained.before) * 100 == pytest.approx(before, abs=1e-5)
    sums = [np.nansum(gained.after[kind]) * 100 for kind in (*KINDS, MISSED, "wrong", "unfound")]
    assert sums == pytest.approx([*after, *special], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_ap_before_is_that_of_the_metric(seed):
    truth, detections = random_split(seed)
    _, gained = analysed(truth, detections)
    assert np.nanmean(gained.before) == pytest.approx(coco_ap(truth, detections)["AP50"], abs=1e-12)


def scene():
    """Returns two images with three objects of classes 0 and 1, far from each other."""
    boxes = np.array([[10, 10, 50, 50], [100, 10, 160, 60], [20, 100, 80, 160]], float)
    return Objects.group_by_image(
        label_map(("cat", "dog")),
        2,
        np.array([0, 0, 1]),
        boxes=boxes,
        labels=np.array([0, 1, 0]),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
    )


def perfect(truth):
    scores = np.linspace(0.9, 0.5, len(truth))
    return ScoredBoxes(truth.image, truth.boxes.copy(), scores, truth.labels.copy())


def joined(*parts):
    return ScoredBoxes(*(np.concatenate(rows) for rows in zip(*map(columns, parts), strict=True)))


def columns(detections):
    return detections.image, detections.boxes, detections.scores, detections.labels


def one(image, box, score, label):
    return ScoredBoxes(
        np.array([image]), np.array([box], float), np.array([score]), np.array([label])
    )


def shifted(box, share):
    """Returns a box moved to the right by a share of its width."""
    step = (box[2] - box[0]) * share
    return [box[0] + step, box[1], box[2] + step, box[3]]


# Each planted detection takes the place of nothing: its object is found besides, except for class
# and location errors, whose object it would have found.
PLANTED = {
    "background": lambda truth: joined(perfect(truth), one(1, [200, 200, 240, 240], 0.8, 0)),
    "duplicate": lambda truth: joined(perfect(truth), one(0, shifted(truth.boxes[0], 0.1), 0.4, 0)),
    "class": lambda truth: joined(
        perfect(truth)[np.array([1, 2])], one(0, truth.boxes[0].tolist(), 0.9, 1)
    ),
    "location": lambda truth: joined(
        perfect(truth)[np.array([1, 2])], one(0, shifted(truth.boxes[0], 0.5), 0.9, 0)
    ),
    "both": lambda truth: joined(
        perfect(truth)[np.array([1, 2])], one(0, shifted(truth.boxes[0], 0.5), 0.9, 1)
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_error_is_found_as_its_kind(kind):
    truth = scene()
    split, gained = analysed(truth, PLANTED[kind](truth))
    *others, planted = split.kinds
    assert KINDS[planted] == kind
    assert set(others) == {NO_ERROR}
    assert split.missed.tolist() == [kind == "both", False, False]
    if kind != "duplicate":  # one with the lowest score costs nothing
        assert gained.mean(kind) > 0
    if kind in ("class", "location"):
        assert split.objects[-1] == 0
        assert gained.mean(kind) == pytest.approx(1 - np.nanmean(gained.before))
    else:
        assert split.objects[-1] == NO_OBJECT


def test_an_object_that_nothing_finds_is_missed():
    truth = scene()
    split, gained = analysed(truth, perfect(truth)[np.array([0, 1])])
    assert split.missed.tolist() == [False, False, True]
    assert set(split.kinds) == {NO_ERROR}
    assert gained.mean(MISSED) == pytest.approx(1 - np.nanmean(gained.before))


def test_a_perfect_predictor_has_no_errors():
    truth, _ = random_split(5)
    split, gained = analysed(truth, perfect(truth)[~truth.ignore])
    assert not split.missed.any()
    # Objects of one class that overlap exactly may be confused by nobody: all are found.
    assert set(split.kinds) == {NO_ERROR}
    assert all(gained.mean(kind) == 0 for kind in gained.after)


def test_without_detections_everything_is_missed():
    truth = scene()
    split, gained = analysed(truth, perfect(truth)[np.zeros(0, np.int64)])
    assert split.missed.all()
    assert gained.before.tolist() == [0, 0]
    assert np.isnan(gained.after[MISSED]).all()  # neither objects nor detections are left
