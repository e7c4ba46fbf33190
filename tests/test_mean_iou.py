import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbv2det.metrics.mean_iou import MeanIoU, near_contour
from mbv2det.structures import IGNORE_INDEX, SegmentationMap

NAMES = ("background", "cat", "dog", "absent")


def segmentation_map(labels):
    return SegmentationMap(torch.tensor(np.asarray(labels), dtype=torch.uint8))


def metric_of(truths, founds, batches=None, names=NAMES):
    masks = [None if truth is None else np.asarray(truth, np.uint8) for truth in truths]
    metric = MeanIoU(names, masks.__getitem__)
    for batch in batches or [range(len(truths))]:
        metric.update([segmentation_map(founds[i]) for i in batch], batch)
    return metric


def scores_of(truths, founds, batches=None, names=NAMES):
    return metric_of(truths, founds, batches, names).compute()


def blobs(seed, side=20, ignored=0.15):
    """Truths and predictions of five images of sides up to 8 `side`: squares of random labels."""
    rng = np.random.default_rng(seed)
    truths, founds = [], []
    for _ in range(5):
        shape = rng.integers(1, 9, 2)
        truth = rng.integers(0, len(NAMES) - 1, shape)
        found = np.where(rng.random(shape) < 0.3, rng.integers(0, len(NAMES) - 1, shape), truth)
        truth[rng.random(shape) < ignored] = IGNORE_INDEX
        square = np.ones((side, side), np.int64)
        truth, found = np.kron(truth, square), np.kron(found, square)
        truths.append(truth.astype(np.uint8))
        founds.append(np.roll(found, rng.integers(-3, 4, 2), (0, 1)).astype(np.uint8))
    return truths, founds


def authors_boundary(mask, width):
    """As Cheng et al. do: 3x3 erosions of the mask within a frame of zeros."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return mask - eroded[1:-1, 1:-1]


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_counts_equal_a_loop_over_pixels(seed):
    truths, founds = blobs(seed, side=1)
    confusion = np.zeros((4, 4), np.int64)
    for truth, found in zip(truths, founds, strict=True):
        for t, f in zip(truth.flat, found.flat, strict=True):
            if t != IGNORE_INDEX:
                confusion[t, f] += 1
    assert metric_of(truths, founds).confusion.tolist() == confusion.tolist()


def test_hand_worked_image():
    # Pixels as (annotated, predicted), one ignored: (0, 0) (0, 1) (1, 1) (1, 1) (2, 0).
    scores = scores_of([[[0, 0, 1], [1, 255, 2]]], [[[0, 1, 1], [1, 2, 0]]])
    # 1 of 2 + 2 - 1; 2 of 2 + 3 - 2; 0 of 1.
    assert scores["per_class"] == {"background": 1 / 3, "cat": 2 / 3, "dog": 0.0, "absent": None}
    assert scores["mIoU"] == pytest.approx(1 / 3)
    assert scores["pixel_accuracy"] == 3 / 5
    assert scores["images"] == 1
    assert json.loads(json.dumps(scores)) == scores


def test_pixels_of_all_images_are_counted_together():
    # Cat: 10 of 10 right in one image, 0 of 90 in the other; a mean over images would be 0.5.
    truths = [np.ones((1, 10)), np.ones((9, 10))]
    scores = scores_of(truths, [np.ones((1, 10)), np.full((9, 10), 2)])
    assert scores["per_class"]["cat"] == 10 / 100


def test_class_predicted_but_annotated_nowhere_counts_as_zero():
    scores = scores_of([[[0, 0]]], [[[0, 2]]])
    assert scores["per_class"] == {"background": 0.5, "cat": None, "dog": 0.0, "absent": None}
    assert scores["mIoU"] == 0.25


def test_class_predicted_on_ignored_pixels_only_does_not_count():
    scores = scores_of([[[0, 255]]], [[[0, 2]]])
    assert scores["per_class"]["dog"] is None
    assert scores["mIoU"] == scores["boundary_IoU"] == 1.0


def test_image_of_ignored_pixels_adds_nothing():
    truths, founds = blobs(0)
    with_ignored = scores_of([*truths, np.full((30, 40), 255)], [*founds, np.ones((30, 40))])
    without = scores_of(truths, founds)
    assert with_ignored.pop("images") == without.pop("images") + 1
    assert with_ignored == without


@pytest.mark.parametrize("truth", [None, np.full((3, 4), 255)])
def test_no_annotated_pixel_scores_none(truth):
    scores = scores_of([truth], [np.ones((3, 4))])
    assert scores.pop("images") == (truth is not None)
    assert scores.pop("per_class") == dict.fromkeys(NAMES)
    assert set(scores.values()) == {None}


def test_image_without_mask_is_left_out():
    truths, founds = blobs(0)
    with_unknown = scores_of([*truths, None], [*founds, np.ones((3, 4))])
    assert with_unknown == scores_of(truths, founds)


def test_neither_order_nor_batches_of_images_matter():
    truths, founds = blobs(1)
    assert scores_of(truths, founds, [[4], [2, 0], [], [1, 3]]) == scores_of(truths, founds)


def test_states_of_two_processes_add_up():
    truths, founds = blobs(2)
    first, second = (metric_of(truths, founds, [batch]) for batch in ([0, 3], [4, 1, 2]))
    first.merge_state(second)
    assert first.compute() == scores_of(truths, founds)


def test_reset_forgets():
    truths, founds = blobs(3)
    metric = metric_of(truths, founds)
    metric.reset()
    metric.update([segmentation_map(founds[0])], [0])
    assert metric.compute() == scores_of(truths[:1], founds[:1])


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_near_contour_equals_the_authors_code_for_each_class(seed, width):
    for labels in blobs(seed, side=7)[0]:
        near = near_contour(labels, width)
        for label in range(len(NAMES)):
            mask = (labels == label).astype(np.uint8)
            np.testing.assert_array_equal(near & (mask > 0), authors_boundary(mask, width) > 0)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_boundary_iou_equals_the_authors_code_summed_over_images(seed):
    truths, founds = blobs(seed)  # diagonals of 28 to 226 pixels: widths of 1 to 5
    intersection, union = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for truth, found in zip(truths, founds, strict=True):
        width = max(1, round(0.02 * np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
        for label in range(4):
            masks = truth == label, (found == label) & (truth != IGNORE_INDEX)
            one, two = (authors_boundary(mask.astype(np.uint8), width) for mask in masks)
            intersection[label] += np.count_nonzero(one & two)
            union[label] += np.count_nonzero(one | two)
    metric = metric_of(truths, founds)
    assert metric.boundary_intersection.tolist() == intersection.tolist()
    assert metric.boundary_union.tolist() == union.tolist()
    measured = union > 0
    expected = np.mean(intersection[measured] / union[measured]) if measured.any() else None
    assert metric.compute()["boundary_IoU"] == pytest.approx(expected)


def test_hand_worked_boundary_iou():
    truth, found = np.zeros((10, 10)), np.zeros((10, 10))
    truth[2:6, 2:6] = found[2:6, 3:7] = 1
    # Contours are one pixel wide. Cat: 12 pixels each, in common rows 2 and 5 of columns 3 to 5:
    # 6 of 12 + 12 - 6. Background: 36 along the image border, which both share, and 20 around the
    # square each, in common rows 1 and 6 of columns 2 to 6: 46 of 56 + 56 - 46.
    assert scores_of([truth], [found])["boundary_IoU"] == pytest.approx((6 / 18 + 46 / 66) / 2)


def test_boundary_iou_sees_a_ragged_contour_better_than_iou():
    truth = np.zeros((100, 100), np.uint8)
    truth[20:80, 20:80] = 1
    found = cv2.erode(truth, np.ones((3, 3)))
    scores = scores_of([truth], [found])
    assert scores["mIoU"] > 0.9
    assert scores["boundary_IoU"] < 0.7


def test_perfect_prediction_scores_one_whatever_is_predicted_on_ignored_pixels():
    truths, founds = blobs(4)
    founds = [np.where(t == IGNORE_INDEX, f, t) for t, f in zip(truths, founds, strict=True)]
    scores = scores_of(truths, founds)
    assert scores["mIoU"] == scores["pixel_accuracy"] == scores["boundary_IoU"] == 1.0


def test_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"mask of image 1, \(2, 3\), but got \(3, 2\)"):
        scores_of([None, np.zeros((2, 3))], [np.zeros((3, 2)), np.zeros((3, 2))])


def test_label_without_name_is_refused():
    with pytest.raises(ValueError, match=r"labels in 0\.\.3 in the mask of image 0, but got 4"):
        scores_of([[[0, 4]]], [[[0, 0]]])
    with pytest.raises(ValueError, match=r"in the prediction of image 0, but got 255"):
        scores_of([[[0, 255]]], [[[0, 255]]])


def test_as_many_indices_as_maps_are_needed():
    with pytest.raises(ValueError, match="shorter"):
        MeanIoU(NAMES, lambda index: None).update([segmentation_map([[0]])], [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_counts_of_maps_on_a_gpu_stay_there():
    truths, founds = blobs(5)
    metric = MeanIoU(NAMES, truths.__getitem__).to("cuda")
    maps = [SegmentationMap(torch.from_numpy(found).cuda()) for found in founds]
    metric.update(maps, range(len(maps)))
    assert metric.confusion.is_cuda
    assert metric.compute() == scores_of(truths, founds)
