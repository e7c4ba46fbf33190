"""The parts of dense points: grid, distances, qualities and both assignments, by hand."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from mbv2det.detection.atss import ATSS
from mbv2det.detection.box_distribution import (
    boxes_to_distances,
    distances_to_boxes,
    distribution_focal_loss,
    expected_distances,
)
from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.point_assigner import PointAssigner
from mbv2det.detection.point_grid import describe_coverage, make_points, points_inside
from mbv2det.detection.quality_loss import quality_focal_loss, varifocal_loss
from mbv2det.detection.task_aligned import TaskAligned
from mbv2det.structures import BoxTargets

NEVER, ALWAYS = 2.0, 0.0


# Grid


def test_points_are_the_centres_of_cells_that_need_not_be_square():
    # 60 x 40 pixels (width x height): 2 x 2 cells of 30 x 20, then one of 60 x 40.
    points, levels = make_points(((2, 2), (1, 1)), (40, 60))
    assert points.tolist() == [
        [15, 10, 30, 20], [45, 10, 30, 20], [15, 30, 30, 20], [45, 30, 30, 20], [30, 20, 60, 40],
    ]  # fmt: skip
    assert levels.tolist() == [0, 0, 0, 0, 1]


def test_points_inside_a_box_include_its_border():
    points, _ = make_points(((2, 2),), (40, 60))
    boxes = torch.tensor([[15.0, 0.0, 44.0, 30.0], [16.0, 11.0, 44.0, 29.0]])
    assert points_inside(boxes, points).tolist() == [[True, False, True, False], [False] * 4]


def test_a_box_between_the_points_is_enlarged_to_a_cell_of_the_finest_level():
    points, _ = make_points(((2, 2), (1, 1)), (40, 60))
    box = torch.tensor([[34.0, 11.0, 35.0, 12.0]])
    # Centre (34.5, 11.5): the cell around it reaches from 19.5 to 49.5 and from 1.5 to 21.5.
    inside = points_inside(box, points, min_cells=1.0)
    assert inside.tolist() == [[False, True, False, False, True]]


def test_coverage_is_the_share_of_objects_with_a_point():
    points, _ = make_points(((4, 4),), (32, 32))
    boxes = np.array([[0, 0, 8, 8], [5, 5, 7, 7], [3, 3, 5, 5], [9, 9, 10, 10]], np.float32)
    assert describe_coverage(boxes, points).startswith("points: 16; 50.0% of 4 objects contain one")
    assert "no objects" in describe_coverage(boxes[:0], points)


# Distances


def test_expected_distance_of_a_hand_computed_distribution():
    # exp of 0, ln 2, ln 5: 1 + 2 + 5 = 8; (0 x 1 + 1 x 2 + 2 x 5) / 8 = 1.5.
    row = torch.tensor([0.0, math.log(2), math.log(5)])
    distances = expected_distances(row.expand(2, 5, 4, 3))
    torch.testing.assert_close(distances, torch.full((2, 5, 4), 1.5))


def test_boxes_reach_as_many_cells_as_the_distances_say():
    points = torch.tensor([[100.0, 50.0, 8.0, 4.0]])
    boxes = distances_to_boxes(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), points)
    assert boxes.tolist() == [[[100 - 8, 50 - 8, 100 + 24, 50 + 16]]]
    assert boxes_to_distances(boxes, points).tolist() == [[[1, 2, 3, 4]]]


@pytest.mark.parametrize(
    ("distance", "weights"),
    [
        (1.25, [0, 0.75, 0.25, 0]),
        (2.0, [0, 0, 1, 0]),
        (-3.0, [1, 0, 0, 0]),
        (9.0, [0, 0, 0.01, 0.99]),
    ],
)
def test_distribution_loss_weights_the_two_bins_around_the_distance(distance, weights):
    row = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=torch.float64)
    expected = -(row.log_softmax(0) * torch.tensor(weights, dtype=torch.float64)).sum()
    loss = distribution_focal_loss(
        row.expand(1, 4, 4), torch.full((1, 4), distance, dtype=torch.float64)
    )
    torch.testing.assert_close(loss, expected[None])


def test_distribution_loss_is_least_where_the_expectation_is_the_distance():
    """Gradient descent on the loss alone finds it."""
    sides = torch.zeros(1, 4, 8, requires_grad=True)
    target = torch.tensor([[0.4, 2.5, 6.9, 3.0]])
    optimizer = torch.optim.Adam([sides], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        distribution_focal_loss(sides, target).sum().backward()
        optimizer.step()
    torch.testing.assert_close(expected_distances(sides.detach()), target, rtol=0, atol=0.02)


# Qualities


def test_varifocal_loss_of_hand_computed_values():
    # Score 1/2. Quality 0: 3/4 x (1/2)^2 x ln 2. Quality 0.8: 0.8 x ln 2.
    loss = varifocal_loss(torch.zeros(2), torch.tensor([0.0, 0.8]))
    expected = [0.75 * 0.25 * math.log(2), 0.8 * math.log(2)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


def test_quality_focal_loss_of_hand_computed_values():
    # Score 1/2: |0 - 1/2|^2 ln 2 and |0.8 - 1/2|^2 ln 2.
    loss = quality_focal_loss(torch.zeros(2), torch.tensor([0.0, 0.8]))
    assert loss.tolist() == pytest.approx([0.25 * math.log(2), 0.09 * math.log(2)], rel=1e-5)


def test_negatives_have_torchvisions_focal_loss():
    logits = torch.linspace(-5, 5, 11)
    expected = sigmoid_focal_loss(logits, torch.zeros(11), alpha=0.25, gamma=2.0)  # 1 - alpha
    torch.testing.assert_close(varifocal_loss(logits, torch.zeros(11)), expected)
    torch.testing.assert_close(quality_focal_loss(logits, torch.zeros(11)), expected / 0.75)


def test_quality_focal_loss_of_quality_one_is_torchvisions_focal_loss():
    logits = torch.linspace(-5, 5, 11)
    expected = sigmoid_focal_loss(logits, torch.ones(11), alpha=-1, gamma=2.0)
    torch.testing.assert_close(quality_focal_loss(logits, torch.ones(11)), expected)


@pytest.mark.parametrize("loss", [varifocal_loss, quality_focal_loss])
def test_the_best_score_is_the_quality(loss):
    logits = torch.linspace(-4, 4, 8001)
    best = logits[loss(logits, torch.full_like(logits, 0.7)).argmin()].sigmoid()
    assert best.item() == pytest.approx(0.7, abs=1e-3)  # the grid's spacing


@pytest.mark.parametrize("loss", [varifocal_loss, quality_focal_loss])
def test_gradient_of_the_class_loss_is_that_of_finite_differences(loss):
    logits = torch.tensor([-2.0, 0.5, 1.5], dtype=torch.float64, requires_grad=True)
    quality = torch.tensor([0.0, 0.9, 0.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, quality), logits)


# Static assignment


def one_level(side=8, count=5):
    return make_points(((count, count),), (side * count, side * count))


def test_atss_of_a_hand_computed_object():
    # 5 x 5 cells of 8 pixels, anchors of 3 cells. The object is the anchor of the middle point:
    # overlap 1 there; 24 x 16 of 24 x 24 with the four beside it: 1/2; 16 x 16 with the four on
    # the diagonals: 256 / (2 x 576 - 256) = 2/7. Mean of these nine candidates: 0.460, standard
    # deviation 0.229. The threshold is 0.689, and only the middle is positive.
    points, levels = one_level()
    box = torch.tensor([[[8.0, 8.0, 32.0, 32.0]]])
    atss = ATSS(anchor_cells=3.0)
    overlaps = atss.overlaps(box, points)
    middle = overlaps.view(5, 5)[1:4, 1:4].flatten()
    expected = torch.tensor([2 / 7, 1 / 2, 2 / 7, 1 / 2, 1, 1 / 2, 2 / 7, 1 / 2, 2 / 7])
    torch.testing.assert_close(middle, expected)
    assert (expected.mean() + expected.std()).item() == pytest.approx(0.689, abs=5e-4)
    inside = points_inside(box, points)
    selected = atss.select(box, points, levels, overlaps, inside)
    assert selected.nonzero()[:, 2].tolist() == [12]


def test_atss_takes_no_point_outside_the_object():
    points, levels = one_level()
    box = torch.tensor([[[8.0, 8.0, 32.0, 32.0]]])
    atss = ATSS(anchor_cells=3.0)
    inside = points_inside(box, points)
    inside[..., 12] = False
    selected = atss.select(box, points, levels, atss.overlaps(box, points), inside)
    # No candidate reaches the threshold: the best of those inside, the first of four equals.
    assert selected.nonzero()[:, 2].tolist() == [7]


def test_atss_has_no_point_for_an_object_without_points_inside():
    points, levels = one_level()
    box = torch.tensor([[[8.0, 8.0, 32.0, 32.0]]])
    atss = ATSS()
    nothing = torch.zeros(1, 1, 25, dtype=torch.bool)
    selected = atss.select(box, points, levels, atss.overlaps(box, points), nothing)
    assert not selected.any()


# Assignment by predictions


def test_alignment_is_score_times_the_sixth_power_of_overlap():
    alignment = TaskAligned().alignment(torch.tensor([[[0.5]]]), torch.tensor([[[0.8]]]))
    assert alignment.item() == pytest.approx(0.5 * 0.8**6, rel=1e-6)


def test_the_best_aligned_points_inside_are_selected():
    alignment = torch.tensor([[[0.3, 0.9, 0.0, 0.5, 0.4]]])
    inside = torch.tensor([[[True, False, True, True, True]]])
    two = TaskAligned(num_points=2).select(alignment, inside)
    assert two.tolist() == [[[False, False, False, True, True]]]
    many = TaskAligned(num_points=13).select(alignment, inside)
    assert many.tolist() == [[[True, False, False, True, True]]]  # not the one without overlap


def test_quality_is_the_largest_overlap_at_the_best_point_and_less_in_proportion():
    alignment = torch.tensor([[[0.2, 0.4, 9.0]]])
    overlaps = torch.tensor([[[0.9, 0.8, 1.0]]])
    positive = torch.tensor([[[True, True, False]]])
    quality = TaskAligned().quality(alignment, overlaps, positive)
    torch.testing.assert_close(quality, torch.tensor([[[0.45, 0.9, 0.0]]]))


# Both together


def outputs_that_find(points, levels, found):
    """Outputs of one image: score 0.8 for class 0 at point `found`, and 0.01 elsewhere."""
    logits = torch.full((1, len(points), 1), math.log(0.01 / 0.99))
    if found is not None:
        logits[0, found] = math.log(0.8 / 0.2)
    return PointOutputs(logits, torch.zeros(1, len(points), 4, 8), points, levels)


def one_object(box, **settings):
    values = {"labels": torch.zeros(1, 1, dtype=torch.int64), "ignore": torch.tensor([[False]])}
    return BoxTargets(torch.tensor([[box]]), annotated=torch.tensor([True]), **(values | settings))


@pytest.mark.parametrize(
    ("found", "aligned_from", "by_predictions"),
    [(None, 0.1, False), (12, 0.1, True), (12, NEVER, False), (None, ALWAYS, True)],
)
def test_an_object_is_assigned_by_predictions_once_one_of_them_finds_it(
    found, aligned_from, by_predictions
):
    points, levels = one_level()
    box = [8.0, 8.0, 32.0, 32.0]
    # All predictions are the object itself, so that all points inside are alike to alignment; by
    # position only the middle one of the nine is positive.
    boxes = torch.tensor(box).expand(1, 25, 4)
    assigner = PointAssigner(atss=ATSS(anchor_cells=3.0), aligned_from=aligned_from)
    targets = assigner(outputs_that_find(points, levels, found), boxes, one_object(box))
    assert targets.matches.positive.sum().item() == (9 if by_predictions else 1)
    assert targets.matches.positive[0, 12]
    assert targets.quality[0, 12].item() == pytest.approx(1.0)


def test_a_point_of_two_objects_goes_to_the_one_that_it_overlaps_more():
    points, levels = one_level()
    boxes = torch.tensor([[[8.0, 8.0, 32.0, 32.0], [8.0, 8.0, 32.0, 36.0]]])
    labels = torch.zeros(1, 2, dtype=torch.int64)
    ignore = torch.zeros(1, 2, dtype=torch.bool)
    targets = BoxTargets(boxes, labels, ignore, torch.tensor([True]))
    outputs = outputs_that_find(points, levels, None)
    assigner = PointAssigner(atss=ATSS(anchor_cells=3.0), aligned_from=NEVER)
    assigned = assigner(outputs, torch.zeros(1, 25, 4), targets)
    assert assigned.matches.object_index[0, 12] == 0


def test_a_point_in_an_ignored_object_has_no_target():
    points, levels = one_level()
    box = [0.0, 0.0, 40.0, 20.0]
    targets = one_object(box, ignore=torch.tensor([[True]]))
    outputs = outputs_that_find(points, levels, None)
    matches = PointAssigner()(outputs, torch.zeros(1, 25, 4), targets).matches
    assert not matches.positive.any()
    # Rows at y = 4, 12, 20, ...: the third lies on the border.
    assert matches.negative.view(5, 5)[:, 0].tolist() == [False, False, False, True, True]
