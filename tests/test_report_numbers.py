"""The numbers of a report besides the error split."""

import math

import numpy as np
import pytest
from test_coco_ap import random_split
from test_error_split import PLANTED, perfect, scene

from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.coco_matches import coco_matches
from mbv2det.report.calibration import calibrate
from mbv2det.report.confusion import confusion, shares
from mbv2det.report.detection_analysis import AVERAGES, analyse_detections
from mbv2det.report.intervals import (
    image_weights,
    interval,
    interval_over_runs,
    student_quantile,
)
from mbv2det.report.object_groups import found_by_group, group_objects, images_by_number
from mbv2det.report.ranking import rank
from mbv2det.report.score_curves import SCORES, score_curves
from mbv2det.report.segmentation_analysis import analyse_masks
from mbv2det.report.worst import find_errors, found_objects


def curves_of(truth, detections):
    return score_curves(rank(truth, detections, coco_matches(truth, detections)))


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_those_of_counting_at_every_score(seed):
    truth, detections = random_split(seed)
    matches = coco_matches(truth, detections)
    curves = curves_of(truth, detections)
    right, ignored = matches.right[0], matches.ignored[0]
    for label in range(len(truth.label_map)):
        num_objects = ((truth.labels == label) & ~truth.ignore).sum()
        if not num_objects:
            assert np.isnan(curves.f1[label]).all()
            continue
        for position in range(0, 101, 10):
            kept = (detections.labels == label) & (detections.scores >= SCORES[position])
            kept &= matches.counted & ~ignored
            found = (kept & right).sum()
            recall = found / num_objects
            precision = found / kept.sum() if kept.any() else 1
            f1 = 2 * precision * recall / (precision + recall) if found else 0
            values = (curves.precision, curves.recall, curves.f1)
            counted = [value[label, position] for value in values]
            assert counted == pytest.approx([precision, recall, f1])


@pytest.mark.parametrize("seed", range(3))
def test_the_best_score_has_the_best_f1_of_all_scores(seed):
    truth, detections = random_split(seed)
    curves = curves_of(truth, detections)
    matches = coco_matches(truth, detections)
    counted = matches.counted & ~matches.ignored[0]
    for label in np.unique(truth.labels[~truth.ignore]):
        own = counted & (detections.labels == label)
        num_objects = ((truth.labels == label) & ~truth.ignore).sum()

        def f1(score, own=own, num_objects=num_objects):
            kept = own & (detections.scores >= score)
            return 2 * (matches.right[0] & kept).sum() / (kept.sum() + num_objects)

        best = max(f1(score) for score in detections.scores[own])
        assert curves.best_f1[label] == pytest.approx(best)
        assert f1(curves.best_score[label]) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_every_object_and_detection_counts_once_in_the_confusion_matrix(seed):
    truth, detections = random_split(seed)
    matches = coco_matches(truth, detections)
    matrix = confusion(truth, detections, matches, 0.4)
    objects = np.bincount(truth.labels[~truth.ignore], minlength=4)
    counted = matches.counted & ~matches.ignored[0] & (detections.scores >= 0.4)
    np.testing.assert_array_equal(matrix[:-1].sum(axis=1), objects)
    np.testing.assert_array_equal(
        matrix[:, :-1].sum(axis=0), np.bincount(detections.labels[counted], minlength=4)
    )
    right = matches.right[0] & counted
    np.testing.assert_array_equal(
        matrix.diagonal()[:-1], np.bincount(detections.labels[right], minlength=4)
    )
    assert matrix[-1, -1] == 0


def test_a_perfect_predictor_has_a_diagonal_confusion_matrix():
    truth, _ = random_split(6)
    detections = perfect(truth)[~truth.ignore]
    matrix = confusion(truth, detections, coco_matches(truth, detections), 0.0)
    assert matrix.sum() == (~truth.ignore).sum()
    np.testing.assert_array_equal(matrix, np.diag(matrix.diagonal()))


@pytest.mark.parametrize(
    ("planted", "cell"), [("background", (2, 0)), ("duplicate", (2, 0)), ("class", (0, 1))]
)
def test_a_planted_error_is_in_its_cell_of_the_confusion_matrix(planted, cell):
    truth = scene()
    detections = PLANTED[planted](truth)
    matrix = confusion(truth, detections, coco_matches(truth, detections), 0.0)
    np.fill_diagonal(matrix, 0)
    expected = np.zeros((3, 3), int)
    expected[cell] = 1
    np.testing.assert_array_equal(matrix, expected)


def test_a_missed_object_is_taken_for_background():
    truth = scene()
    detections = perfect(truth)[np.array([0, 1])]
    matrix = confusion(truth, detections, coco_matches(truth, detections), 0.0)
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_confusion_is_normalised_by_rows_and_by_columns():
    matrix = np.array([[3, 1], [0, 0]])
    assert shares(matrix, axis=1).tolist() == [[0.75, 0.25], [0, 0]]
    assert shares(matrix, axis=0).tolist() == [[1, 1], [0, 0]]


def test_scores_that_are_probabilities_have_no_calibration_error():
    draw = np.random.default_rng(0)
    scores = draw.uniform(0, 1, 200_000)
    honest = calibrate(scores, draw.random(len(scores)) < scores)
    assert honest.error < 0.01  # 20,000 a range: a standard deviation of 0.0035
    proud = calibrate(scores, draw.random(len(scores)) < scores**2)
    assert proud.error == pytest.approx(1 / 2 - 1 / 3, abs=0.01)
    assert proud.bias == pytest.approx(proud.error, abs=0.01)
    assert math.isnan(calibrate(np.zeros(0), np.zeros(0, bool)).error)


def test_a_score_of_one_is_in_the_last_range():
    assert calibrate(np.array([0.0, 0.05, 1.0]), np.ones(3, bool)).counts.tolist() == [
        2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ]  # fmt: skip


def test_objects_are_grouped_by_size_number_and_overlap():
    truth = scene()  # areas 1600, 3000 and 3600; two objects and one; no overlap
    groups = group_objects(truth)
    assert groups.size.tolist() == [2, 2, 2]
    assert groups.neighbours.tolist() == [1, 1, 0]
    assert groups.overlap.tolist() == [0, 0, 0]
    counts = found_by_group(groups.neighbours, np.array([True, False, True]), truth.labels, 5, 2)
    assert counts[0].sum(axis=0).tolist() == [1, 1, 0, 0, 0]
    assert counts[1].sum(axis=0).tolist() == [1, 2, 0, 0, 0]
    assert [w.tolist() for w in images_by_number(truth)[:2]] == [[0, 1], [1, 0]]


def test_errors_are_listed_worst_first():
    truth, detections = random_split(3)
    matches = coco_matches(truth, detections)
    errors = find_errors(truth, detections, matches, 0.5)
    found = found_objects(truth, detections, matches, 0.5)
    assert not matches.right[0][errors.wrong].any()
    assert (np.diff(detections.scores[errors.wrong]) <= 0).all()
    assert (np.diff(truth.areas[errors.missed]) <= 0).all()
    assert len(errors.missed) + found[~truth.ignore].sum() == (~truth.ignore).sum()
    assert errors.by_image.sum() == len(errors.wrong) + len(errors.missed)
    assert (np.diff(errors.by_image[errors.worst_images]) <= 0).all()


def test_analysis_has_the_metrics_own_averages():
    truth, detections = random_split(4)
    images = np.arange(truth.num_images)
    analysis = analyse_detections(images, truth, detections, times=20)
    coco = coco_ap(truth, detections)
    assert dict(zip(AVERAGES, analysis.values, strict=False)) == pytest.approx(
        {name: coco[name] for name in AVERAGES}, abs=1e-12
    )
    assert analysis.samples.shape == (20, len(AVERAGES) + len(truth.label_map))
    assert np.isnan(analysis.samples[:, len(AVERAGES)]).all()  # class 0 is not annotated


def test_every_draw_takes_as_many_images_as_there_are():
    images = np.array([1, 4, 5])
    draws = np.stack(list(image_weights(images, 7, 50)))
    assert (draws.sum(axis=1) == 3).all()
    assert set(np.flatnonzero(draws.sum(axis=0))) == {1, 4, 5}
    np.testing.assert_array_equal(draws, np.stack(list(image_weights(images, 7, 50))))


def test_intervals_hold_the_true_value_as_often_as_they_say():
    draw = np.random.default_rng(1)
    held, trials = 0, 300
    for seed in range(trials):
        values = draw.normal(0.4, 0.1, 60)
        weights = np.stack(list(image_weights(np.arange(60), 60, 200, seed)))
        low, high = interval(values.mean(keepdims=True), (weights @ values / 60)[:, None])[:, 0]
        held += low <= 0.4 <= high
    # Of 300 intervals 285 are expected, with a standard deviation of 4; few images make them short.
    assert 270 <= held <= 297


def test_an_interval_corrects_the_bias_of_its_draws():
    samples = np.random.default_rng(2).normal(0.6, 0.05, (40_000, 1))  # of a value of 0.58
    low, high = interval(np.array([0.58]), samples)[:, 0]
    # Of a normal distribution: the value less the bias of 0.02, and 1.96 standard deviations.
    assert low == pytest.approx(0.56 - 1.96 * 0.05, abs=0.005)
    assert high == pytest.approx(0.56 + 1.96 * 0.05, abs=0.005)


def test_values_without_a_draw_have_no_interval():
    assert np.isnan(interval(np.array([np.nan]), np.full((5, 1), np.nan))).all()
    assert interval(np.array([1.0]), np.ones((5, 1))).tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (4, 2.776), (12, 2.179), (30, 2.042), (120, 1.980)]
)
def test_students_quantiles_are_those_of_the_tables(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, abs=1e-3)


def test_the_interval_over_runs_is_students():
    values = np.array([0.30, 0.32, 0.34])
    low, high = interval_over_runs(values)
    half = 4.303 * 0.02 / 3**0.5
    assert (low, high) == pytest.approx((0.32 - half, 0.32 + half))


def test_masks_are_averaged_over_pixels_of_all_images():
    confusion = np.array([[[8, 2], [0, 10]], [[20, 0], [5, 0]]])
    analysis = analyse_masks(np.array([3, 7]), confusion, times=50)
    iou = [28 / 35, 10 / 17]
    assert analysis.values == pytest.approx([np.mean(iou), 38 / 45, *iou])
    assert analysis.wrong == pytest.approx([0.1, 0.2])
    assert analysis.confusion.tolist() == [[28, 2], [5, 10]]
    assert analysis.wrong_of_label == pytest.approx(np.array([[0.1, 0.1], [0.2, 0.2]]))


def test_a_perfect_mask_has_no_wrong_pixels():
    confusion = np.stack([np.diag([5, 7]), np.diag([9, 0])])
    analysis = analyse_masks(np.array([0, 1]), confusion, times=20)
    assert analysis.values.tolist() == [1, 1, 1, 1]
    assert analysis.wrong.tolist() == [0, 0]
    assert np.nanmin(analysis.samples) == 1
