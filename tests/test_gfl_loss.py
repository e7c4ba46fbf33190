from functools import partial

import pytest
import torch
from points import (
    BINS,
    GRIDS,
    IMAGE_SIZE,
    looped_loss,
    looped_quality_focal,
    looped_varifocal,
    random_case,
)

from mbv2det.detection.gfl_loss import GFLLoss
from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.point_assigner import PointAssigner
from mbv2det.detection.quality_loss import quality_focal_loss, varifocal_loss
from mbv2det.structures import BoxTargets

pytestmark = pytest.mark.usefixtures("one_thread")

LOSS = GFLLoss(varifocal_loss)


def with_gradient(outputs):
    logits, sides = (t.clone().requires_grad_() for t in (outputs.logits, outputs.sides))
    return PointOutputs(logits, sides, outputs.points, outputs.levels)


def one_image(outputs, targets, i):
    rows = slice(i, i + 1)
    picked = PointOutputs(outputs.logits[rows], outputs.sides[rows], outputs.points, outputs.levels)
    return picked, targets[torch.tensor([i])]


def targets_of(boxes, *, ignore=False):
    labels = torch.zeros(1, len(boxes), dtype=torch.int64)
    ignored = torch.full_like(labels, ignore, dtype=torch.bool)
    return BoxTargets(torch.tensor([boxes]), labels, ignored, torch.tensor([True]))


@pytest.mark.parametrize(
    ("class_loss", "reference"),
    [(varifocal_loss, looped_varifocal), (quality_focal_loss, looped_quality_focal)],
)
@pytest.mark.parametrize("aligned_from", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("counts", [(1, 4, 2), (0, 6), (0,)])
def test_loss_equals_its_definition_in_loops(counts, aligned_from, class_loss, reference):
    outputs, targets = random_case(counts)
    targets.ignore[0, 0] = counts[0] > 0  # one crowd
    loss = GFLLoss(
        class_loss,
        PointAssigner(aligned_from=aligned_from),
        box_weight=3.0,
        distribution_weight=5.0,
    )
    terms = loss(outputs, targets)
    expected = looped_loss(outputs, targets, aligned_from, reference)
    # float32 sums of some hundred terms against float64: 1e-6 each, and 1e-5 for the sixth power.
    close = partial(pytest.approx, rel=5e-5)
    assert terms.count.item() == close(expected["count"])
    assert terms.sums["boxes"].item() == close(3 * expected["boxes"])
    assert terms.sums["distribution"].item() == close(5 * expected["distribution"])
    assert terms.sums["classes"].item() == close(expected["classes"])


def test_the_case_has_objects_of_both_assignments():
    """Checks that the loop above compares a mixture at 0.1, where the ends differ."""
    outputs, targets = random_case((1, 4, 2))
    counts = [
        GFLLoss(varifocal_loss, PointAssigner(aligned_from=value))(outputs, targets).count.item()
        for value in (0.0, 0.1, 2.0)
    ]
    assert len(set(counts)) == 3


def test_images_without_objects_train_the_background_only():
    outputs, targets = random_case((0, 0))
    outputs = with_gradient(outputs)
    terms = LOSS(outputs, targets)
    assert terms.count.item() == terms.sums["boxes"].item() == 0
    total = terms.total()
    total.backward()
    assert total.isfinite()
    assert (outputs.sides.grad == 0).all()
    assert (outputs.logits.grad > 0).all()


def test_images_without_annotations_have_no_loss():
    outputs, targets = random_case((0, 0))
    targets.annotated[:] = False
    outputs = with_gradient(outputs)
    total = LOSS(outputs, targets).total()
    total.backward()
    assert total.item() == 0
    assert (outputs.logits.grad == 0).all()


def test_points_in_a_crowd_get_no_gradient():
    outputs, _ = random_case((1,))
    outputs = with_gradient(outputs)
    # The left half of the image: the points of 6 of 12, 3 of 6, 1 of 3 and 1 of 2 columns, where
    # the centre of the middle column of the third level lies on the border.
    LOSS(outputs, targets_of([[0.0, 0.0, 47.0, 64.0]], ignore=True)).total().backward()
    in_crowd = outputs.points[:, 0] <= 47
    assert in_crowd.sum() == 8 * 6 + 4 * 3 + 2 * 1 + 1
    has_gradient = (outputs.logits.grad != 0).all(dim=2)[0]
    assert torch.equal(has_gradient, ~in_crowd)


def test_an_object_in_a_crowd_is_trained():
    outputs, _ = random_case((1,))
    targets = targets_of([[0.0, 0.0, 96.0, 64.0], [10.0, 10.0, 30.0, 40.0]])
    targets.ignore[0, 0] = True
    terms = LOSS(outputs, targets)
    assert terms.count > 0
    assert terms.sums["boxes"] > 0


@pytest.mark.parametrize(
    "box",
    [
        [40.2, 31.9, 41.2, 32.9],  # between four points
        [0.0, 0.0, 1.0, 1.0],
        [95.0, 63.0, 96.0, 64.0],
        [8.0, 8.0, 8.0, 8.0],  # no area
        [0.0, 0.0, 96.0, 64.0],
    ],
)
@pytest.mark.parametrize("confident", [True, False])
def test_every_object_is_trained_whatever_its_size(box, confident):
    outputs, _ = random_case((1,), confident=confident)
    outputs = with_gradient(outputs)
    targets = targets_of([box])
    terms = LOSS(outputs, targets)
    terms.total().backward()
    assert outputs.logits.grad.isfinite().all()
    assert outputs.sides.grad.isfinite().all()
    boxes = torch.zeros_like(outputs.points)[None]
    assert LOSS.assigner(outputs, boxes, targets).matches.positive.any()


def test_every_gradient_is_finite_for_large_outputs():
    outputs, targets = random_case((3, 1))
    outputs = with_gradient(
        PointOutputs(outputs.logits * 100, outputs.sides * 100, outputs.points, outputs.levels)
    )
    LOSS(outputs, targets).total().backward()
    assert outputs.logits.grad.isfinite().all()
    assert outputs.sides.grad.isfinite().all()


def test_the_assignment_has_no_gradient():
    """The targets depend on the predictions, but training must not make the targets easier."""
    outputs, targets = random_case((3,))
    outputs = with_gradient(outputs)
    assert not LOSS(outputs, targets).count.requires_grad


def test_bfloat16_outputs_give_the_float32_loss_of_their_values():
    outputs, targets = random_case((2, 3))
    half = PointOutputs(
        outputs.logits.bfloat16(), outputs.sides.bfloat16(), outputs.points, outputs.levels
    )
    full = PointOutputs(half.logits.float(), half.sides.float(), outputs.points, outputs.levels)
    with torch.autocast("cpu", torch.bfloat16):
        terms = LOSS(half, targets)
    expected = LOSS(full, targets)
    for name in LOSS.terms:
        assert terms.sums[name].dtype == torch.float32
        assert terms.sums[name].item() == expected.sums[name].item()


def test_sums_of_a_batch_are_the_sums_of_its_images():
    outputs, targets = random_case((3, 0, 5))
    together = LOSS(outputs, targets)
    alone = [LOSS(*one_image(outputs, targets, i)) for i in range(3)]
    # Only the order of float32 sums differs.
    assert together.count.item() == pytest.approx(sum(t.count.item() for t in alone), rel=1e-5)
    for name in LOSS.terms:
        total = sum(terms.sums[name].item() for terms in alone)
        assert together.sums[name].item() == pytest.approx(total, rel=1e-5)


def test_the_order_of_the_objects_does_not_matter():
    outputs, targets = random_case((5,))
    reversed_targets = BoxTargets(
        targets.boxes.flip(1), targets.labels.flip(1), targets.ignore, targets.annotated
    )
    first, second = LOSS(outputs, targets), LOSS(outputs, reversed_targets)
    # Only the order of float32 sums differs.
    assert first.count.item() == pytest.approx(second.count.item(), rel=1e-6)
    for name in LOSS.terms:
        assert first.sums[name].item() == pytest.approx(second.sums[name].item(), rel=1e-5)


def test_the_case_has_cells_that_are_not_square():
    assert IMAGE_SIZE[0] / GRIDS[3][0] != IMAGE_SIZE[1] / GRIDS[3][1]
    assert BINS == 8
