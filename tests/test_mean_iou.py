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


def metric_of(masks, predictions, batches=None, names=NAMES):
    masks = [None if mask is None else np.asarray(mask, np.uint8) for mask in masks]
    metric = MeanIoU(names)
    for batch in batches or [range(len(masks))]:
        maps = [segmentation_map(predictions[i]) for i in batch]
        metric.update(maps, [masks[i] for i in batch])
    return metric


def scores_of(masks, predictions, batches=None, names=NAMES):
    return metric_of(masks, predictions, batches, names).compute()


def blobs(seed, side=20, ignored=0.15):
    """Masks and predictions of five images of sides up to 8 `side`: squares of random labels."""
    rng = np.random.default_rng(seed)
    masks, predictions = [], []
    for _ in range(5):
        shape = rng.integers(1, 9, 2)
        mask = rng.integers(0, len(NAMES) - 1, shape)
        prediction = np.where(rng.random(shape) < 0.3, rng.integers(0, len(NAMES) - 1, shape), mask)
        mask[rng.random(shape) < ignored] = IGNORE_INDEX
        square = np.ones((side, side), np.int64)
        mask, prediction = np.kron(mask, square), np.kron(prediction, square)
        masks.append(mask.astype(np.uint8))
        predictions.append(np.roll(prediction, rng.integers(-3, 4, 2), (0, 1)).astype(np.uint8))
    return masks, predictions


def authors_boundary(mask, width):
    """Returns the boundary as Cheng et al. compute it: 3x3 erosions of the zero-padded mask."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return mask - eroded[1:-1, 1:-1]


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_counts_equal_a_loop_over_pixels(seed):
    masks, predictions = blobs(seed, side=1)
    confusion = np.zeros((4, 4), np.int64)
    for mask, prediction in zip(masks, predictions, strict=True):
        for t, f in zip(mask.flat, prediction.flat, strict=True):
            if t != IGNORE_INDEX:
                confusion[t, f] += 1
    assert metric_of(masks, predictions).confusion.tolist() == confusion.tolist()


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
    masks = [np.ones((1, 10)), np.ones((9, 10))]
    scores = scores_of(masks, [np.ones((1, 10)), np.full((9, 10), 2)])
    assert scores["per_class"]["cat"] == 10 / 100


def test_class_predicted_but_annotated_nowhere_counts_as_zero():
    scores = scores_of([[[0, 0]]], [[[0, 2]]])
    assert scores["per_class"] == {"background": 0.5, "cat": None, "dog": 0.0, "absent": None}
    assert scores["mIoU"] == 0.25


def test_class_predicted_on_ignored_pixels_only_does_not_count():
    scores = scores_of([[[0, 255]]], [[[0, 2]]])
    assert scores["per_class"]["dog"] is None
    assert scores["mIoU"] == scores["boundary_IoU"] == 1.0


def test_image_of_ignored_pixels_does_not_count():
    masks, predictions = blobs(0)
    with_ignored = scores_of([*masks, np.full((30, 40), 255)], [*predictions, np.ones((30, 40))])
    without = scores_of(masks, predictions)
    assert with_ignored.pop("images") == without.pop("images") + 1
    assert with_ignored == without


@pytest.mark.parametrize("mask", [None, np.full((3, 4), 255)])
def test_without_annotated_pixels_scores_are_none(mask):
    scores = scores_of([mask], [np.ones((3, 4))])
    assert scores.pop("images") == (mask is not None)
    assert scores.pop("per_class") == dict.fromkeys(NAMES)
    assert set(scores.values()) == {None}


def test_image_without_mask_is_left_out():
    masks, predictions = blobs(0)
    with_unknown = scores_of([*masks, None], [*predictions, np.ones((3, 4))])
    assert with_unknown == scores_of(masks, predictions)


def test_neither_order_nor_batches_of_images_matter():
    masks, predictions = blobs(1)
    assert scores_of(masks, predictions, [[4], [2, 0], [], [1, 3]]) == scores_of(masks, predictions)


def test_states_of_two_processes_add_up():
    masks, predictions = blobs(2)
    first, second = (metric_of(masks, predictions, [batch]) for batch in ([0, 3], [4, 1, 2]))
    first.merge_state(second)
    assert first.compute() == scores_of(masks, predictions)


def test_reset_clears_the_state():
    masks, predictions = blobs(3)
    metric = metric_of(masks, predictions)
    metric.reset()
    metric.update([segmentation_map(predictions[0])], masks[:1])
    assert metric.compute() == scores_of(masks[:1], predictions[:1])


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
    masks, predictions = blobs(seed)  # diagonals of 28 to 226 pixels: widths of 1 to 5
    intersection, union = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for mask, prediction in zip(masks, predictions, strict=True):
        width = max(1, round(0.02 * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
        for label in range(4):
            regions = mask == label, (prediction == label) & (mask != IGNORE_INDEX)
            one, two = (authors_boundary(region.astype(np.uint8), width) for region in regions)
            intersection[label] += np.count_nonzero(one & two)
            union[label] += np.count_nonzero(one | two)
    metric = metric_of(masks, predictions)
    assert metric.boundary_intersection.tolist() == intersection.tolist()
    assert metric.boundary_union.tolist() == union.tolist()
    measured = union > 0
    expected = np.mean(intersection[measured] / union[measured]) if measured.any() else None
    assert metric.compute()["boundary_IoU"] == pytest.approx(expected)


def test_hand_worked_boundary_iou():
    mask, prediction = np.zeros((10, 10)), np.zeros((10, 10))
    mask[2:6, 2:6] = prediction[2:6, 3:7] = 1
    # Contours are one pixel wide. Cat: 12 pixels each, in common rows 2 and 5 of columns 3 to 5:
    # 6 of 12 + 12 - 6. Background: 36 along the image border, which both share, and 20 around the
    # square each, in common rows 1 and 6 of columns 2 to 6: 46 of 56 + 56 - 46.
    assert scores_of([mask], [prediction])["boundary_IoU"] == pytest.approx((6 / 18 + 46 / 66) / 2)


def test_a_ragged_contour_lowers_boundary_iou_more_than_iou():
    mask = np.zeros((100, 100), np.uint8)
    mask[20:80, 20:80] = 1
    prediction = cv2.erode(mask, np.ones((3, 3)))
    scores = scores_of([mask], [prediction])
    assert scores["mIoU"] > 0.9
    assert scores["boundary_IoU"] < 0.7


def test_perfect_prediction_scores_one_with_any_labels_on_ignored_pixels():
    masks, predictions = blobs(4)
    predictions = [
        np.where(t == IGNORE_INDEX, f, t) for t, f in zip(masks, predictions, strict=True)
    ]
    scores = scores_of(masks, predictions)
    assert scores["mIoU"] == scores["pixel_accuracy"] == scores["boundary_IoU"] == 1.0


def test_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"mask of image 1 .*, \(2, 3\), but got \(3, 2\)"):
        scores_of([None, np.zeros((2, 3))], [np.zeros((3, 2)), np.zeros((3, 2))])


def test_label_without_name_is_refused():
    with pytest.raises(ValueError, match=r"labels in 0\.\.3 in the mask of image 0 .*, but got 4"):
        scores_of([[[0, 4]]], [[[0, 0]]])
    with pytest.raises(ValueError, match=r"in the prediction of image 0 .*, but got 255"):
        scores_of([[[0, 255]]], [[[0, 255]]])


def test_as_many_masks_as_maps_are_needed():
    with pytest.raises(ValueError, match="shorter"):
        MeanIoU(NAMES).update([segmentation_map([[0]])], [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_counts_of_maps_on_a_gpu_stay_there():
    masks, predictions = blobs(5)
    metric = MeanIoU(NAMES).to("cuda")
    maps = [SegmentationMap(torch.from_numpy(prediction).cuda()) for prediction in predictions]
    metric.update(maps, masks)
    assert metric.confusion.is_cuda
    assert metric.compute() == scores_of(masks, predictions)
