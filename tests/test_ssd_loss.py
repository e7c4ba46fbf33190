import math
from functools import partial

import pytest
import torch

from mbv2det.detection.loss import SSDLoss, focal_loss, hardest_negatives, softmax_loss
from mbv2det.detection.matcher import Matches
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.structures import BoxTargets, LossTerms

NUM_CLASSES = 3


def random_boxes(count, generator):
    low = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([low, low + 8 + torch.rand(count, 2, generator=generator) * 32], dim=1)


def random_case(counts, slots, num_anchors=40, seed=0):
    """Outputs and targets of images with `counts` objects each."""
    generator = torch.Generator().manual_seed(seed)
    most = max(1, *counts)
    boxes, labels = torch.zeros(len(counts), most, 4), torch.full((len(counts), most), -1)
    for i, count in enumerate(counts):
        boxes[i, :count] = random_boxes(count, generator)
        labels[i, :count] = torch.randint(NUM_CLASSES, (count,), generator=generator)
    outputs = SSDOutputs(
        logits=torch.randn(len(counts), num_anchors, slots, generator=generator),
        deltas=torch.randn(len(counts), num_anchors, 4, generator=generator),
        anchors=random_boxes(num_anchors, generator),
    )
    annotated = torch.ones(len(counts), dtype=torch.bool)
    return outputs, BoxTargets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool), annotated)


def with_gradient(outputs):
    return SSDOutputs(
        outputs.logits.clone().requires_grad_(),
        outputs.deltas.clone().requires_grad_(),
        outputs.anchors,
    )


def one_image(outputs, targets, i):
    picked = SSDOutputs(outputs.logits[i : i + 1], outputs.deltas[i : i + 1], outputs.anchors)
    return picked, targets[torch.tensor([i])]


def corners_to_delta(box, anchor):
    (x1, y1, x2, y2), (u1, v1, u2, v2) = box, anchor
    width, height = u2 - u1, v2 - v1
    return [
        10 * ((x1 + x2) / 2 - (u1 + u2) / 2) / width,
        10 * ((y1 + y2) / 2 - (v1 + v2) / 2) / height,
        5 * math.log((x2 - x1) / width),
        5 * math.log((y2 - y1) / height),
    ]


def looped_box_loss(outputs, targets, matches):
    """Sums smooth L1 by its definition: d^2 / 2 below 1, |d| - 1/2 above."""
    total = 0.0
    for i, a in matches.positive.nonzero().tolist():
        target_deltas = corners_to_delta(
            targets.boxes[i, matches.object_index[i, a]].tolist(), outputs.anchors[a].tolist()
        )
        for predicted, target in zip(outputs.deltas[i, a].tolist(), target_deltas, strict=True):
            d = abs(predicted - target)
            total += d * d / 2 if d < 1 else d - 0.5
    return total


def looped_softmax_loss(logits, targets, matches):
    """Sums -log softmax of the target slot over positives and the hardest negatives, 3:1."""
    total = 0.0
    for i, image in enumerate(logits.tolist()):
        negatives, num_positives = [], 0
        for a, row in enumerate(image):
            log_sum = math.log(sum(math.exp(v) for v in row))
            if matches.positive[i, a]:
                total += log_sum - row[1 + targets.labels[i, matches.object_index[i, a]].item()]
                num_positives += 1
            elif matches.negative[i, a]:
                negatives.append(log_sum - row[0])
        total += sum(sorted(negatives, reverse=True)[: max(3, 3 * num_positives)])
    return total


def looped_focal_loss(logits, targets, matches, alpha=0.25, gamma=2.0):
    """Sums -alpha_t (1 - p_t)^gamma log p_t over the classes of all matched anchors."""
    total = 0.0
    for i, image in enumerate(logits.tolist()):
        for a, row in enumerate(image):
            if not (matches.positive[i, a] or matches.negative[i, a]):
                continue
            is_positive = matches.positive[i, a]
            label = targets.labels[i, matches.object_index[i, a]].item() if is_positive else -1
            for k, value in enumerate(row):
                p = 1 / (1 + math.exp(-value))
                p_t, alpha_t = (p, alpha) if k == label else (1 - p, 1 - alpha)
                total -= alpha_t * (1 - p_t) ** gamma * math.log(p_t)
    return total


LOSSES = pytest.mark.parametrize(
    ("class_loss", "slots"), [(softmax_loss, NUM_CLASSES + 1), (focal_loss, NUM_CLASSES)]
)


@pytest.mark.parametrize(
    ("class_loss", "slots", "reference"),
    [
        (softmax_loss, NUM_CLASSES + 1, looped_softmax_loss),
        (focal_loss, NUM_CLASSES, looped_focal_loss),
    ],
)
@pytest.mark.parametrize("counts", [(1, 4, 2), (0, 2), (0,)])
def test_loss_equals_its_definition_in_a_loop(class_loss, slots, reference, counts):
    outputs, targets = random_case(counts, slots)
    targets.ignore[0, 0] = counts[0] > 0  # one crowd
    loss = SSDLoss(class_loss)
    terms = loss(outputs, targets)
    matches = loss.matcher(targets, outputs.anchors)
    assert terms.count.item() == matches.positive.sum().item()
    # float32 sums of some hundred terms against float64: 1e-6 each.
    boxes = looped_box_loss(outputs, targets, matches)
    classes = reference(outputs.logits, targets, matches)
    assert terms.sums["boxes"].item() == pytest.approx(boxes, rel=1e-5)
    assert terms.sums["classes"].item() == pytest.approx(classes, rel=1e-5)


def test_softmax_loss_of_a_hand_computed_row():
    # Logits (0, 0): -ln(1/2) = ln 2 each. One positive, so three of five negatives: 4 ln 2.
    positive = torch.tensor([[True, False, False, False, False, False]])
    matches = Matches(torch.zeros(1, 6, dtype=torch.int64), positive, ~positive)
    labels = torch.zeros(1, 6, dtype=torch.int64)
    loss = softmax_loss(torch.zeros(1, 6, 2), labels, matches)
    assert loss.item() == pytest.approx(4 * math.log(2), rel=1e-6)  # float32


def test_background_is_slot_zero():
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    matches = Matches(torch.zeros(1, 5, dtype=torch.int64), nothing, ~nothing)
    confident = torch.tensor([30.0, 0.0, 0.0]).expand(1, 5, 3)
    # exp(-30) is far below float32's resolution of 1.
    assert softmax_loss(confident, torch.zeros(1, 5, dtype=torch.int64), matches).item() < 1e-6


def test_hardest_negatives_have_the_largest_losses():
    loss = torch.tensor([[5.0, 1.0, 4.0, 3.0, 2.0]])
    negative = torch.tensor([[False, True, True, True, True]])
    selected = hardest_negatives(loss, negative, torch.tensor([2]))
    assert selected.tolist() == [[False, False, True, True, False]]


def test_hardest_negatives_are_all_where_there_are_too_few():
    negative = torch.tensor([[True, False, True]])
    selected = hardest_negatives(torch.zeros(1, 3), negative, torch.tensor([9]))
    assert torch.equal(selected, negative)


def test_number_of_hardest_negatives_is_that_of_each_image():
    loss = torch.arange(8.0).view(2, 4)
    negative = torch.ones(2, 4, dtype=torch.bool)
    selected = hardest_negatives(loss, negative, torch.tensor([1, 3]))
    assert selected.tolist() == [[False, False, False, True], [False, True, True, True]]


@LOSSES
def test_class_loss_gradient_is_that_of_finite_differences(class_loss, slots):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 6, slots, generator=generator, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[False, True, False, False, False, False]])
    matches = Matches(torch.zeros(1, 6, dtype=torch.int64), positive, ~positive)
    labels = torch.randint(NUM_CLASSES, (1, 6), generator=generator)
    assert torch.autograd.gradcheck(partial(class_loss, labels=labels, matches=matches), logits)


def test_box_loss_gradient_is_the_difference_limited_to_one():
    anchor = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    targets = BoxTargets(
        anchor[None],
        torch.zeros(1, 1, dtype=torch.int64),
        torch.tensor([[False]]),
        torch.tensor([True]),
    )
    deltas = torch.tensor([[[2.0, -3.0, 0.5, -0.25]]], requires_grad=True)
    # The object is the anchor itself, so that every target delta is 0.
    outputs = SSDOutputs(torch.zeros(1, 1, NUM_CLASSES + 1), deltas, anchor)
    SSDLoss(softmax_loss)(outputs, targets).sums["boxes"].backward()
    assert deltas.grad.tolist() == [[[1.0, -1.0, 0.5, -0.25]]]


@LOSSES
def test_images_without_objects_train_the_background_only(class_loss, slots):
    outputs, targets = random_case((0, 0), slots)
    outputs = with_gradient(outputs)
    terms = SSDLoss(class_loss)(outputs, targets)
    assert terms.count.item() == 0
    assert terms.sums["boxes"].item() == 0
    total = terms.total()
    assert total.isfinite()
    total.backward()
    assert (outputs.deltas.grad == 0).all()
    assert outputs.logits.grad.isfinite().all()
    assert (outputs.logits.grad != 0).any()


@LOSSES
def test_images_without_annotations_have_no_loss(class_loss, slots):
    outputs, targets = random_case((0, 0), slots)
    targets.annotated[:] = False
    outputs = with_gradient(outputs)
    total = SSDLoss(class_loss)(outputs, targets).total()
    total.backward()
    assert total.item() == 0
    assert (outputs.logits.grad == 0).all()
    assert (outputs.deltas.grad == 0).all()


@LOSSES
def test_images_without_annotations_do_not_change_the_loss_of_others(class_loss, slots):
    outputs, targets = random_case((3, 0), slots)
    targets.annotated[1] = False
    together = SSDLoss(class_loss)(outputs, targets)
    alone = SSDLoss(class_loss)(*one_image(outputs, targets, 0))
    assert together.count.item() == alone.count.item()
    for name in SSDLoss.terms:
        # Only the order of a float32 sum differs.
        assert together.sums[name].item() == pytest.approx(alone.sums[name].item(), rel=1e-5)


def test_softmax_loss_of_an_image_without_objects_uses_three_negatives():
    outputs, targets = random_case((0,), NUM_CLASSES + 1)
    outputs = with_gradient(outputs)
    SSDLoss(softmax_loss)(outputs, targets).total().backward()
    assert (outputs.logits.grad != 0).any(dim=2).sum().item() == 3


@LOSSES
def test_anchors_under_a_crowd_get_no_gradient(class_loss, slots):
    outputs, targets = random_case((1,), slots)
    targets = BoxTargets(
        torch.tensor([[[0.0, 0.0, 200.0, 200.0]]]),
        targets.labels,
        torch.tensor([[True]]),
        torch.tensor([True]),
    )
    outputs = with_gradient(outputs)
    total = SSDLoss(class_loss)(outputs, targets).total()
    total.backward()
    assert total.item() == 0
    assert (outputs.logits.grad == 0).all()


@LOSSES
def test_every_gradient_is_finite_for_large_outputs(class_loss, slots):
    outputs, targets = random_case((3, 1), slots)
    outputs.logits *= 100
    outputs.deltas *= 100
    outputs = with_gradient(outputs)
    SSDLoss(class_loss)(outputs, targets).total().backward()
    assert outputs.logits.grad.isfinite().all()
    assert outputs.deltas.grad.isfinite().all()


@LOSSES
def test_bfloat16_outputs_give_the_float32_loss_of_their_values(class_loss, slots):
    outputs, targets = random_case((2, 3), slots)
    half = SSDOutputs(outputs.logits.bfloat16(), outputs.deltas.bfloat16(), outputs.anchors)
    full = SSDOutputs(half.logits.float(), half.deltas.float(), outputs.anchors)
    with torch.autocast("cpu", torch.bfloat16):
        terms = SSDLoss(class_loss)(half, targets)
    expected = SSDLoss(class_loss)(full, targets)
    for name in SSDLoss.terms:
        assert terms.sums[name].dtype == torch.float32
        assert terms.sums[name].item() == expected.sums[name].item()


@LOSSES
def test_sums_of_a_batch_are_the_sums_of_its_images(class_loss, slots):
    outputs, targets = random_case((3, 0, 5), slots)
    loss = SSDLoss(class_loss)
    together = loss(outputs, targets)
    alone = [loss(*one_image(outputs, targets, i)) for i in range(3)]
    assert together.count.item() == sum(terms.count.item() for terms in alone)
    for name in SSDLoss.terms:
        total = sum(terms.sums[name].item() for terms in alone)
        # Only the order of a float32 sum differs.
        assert together.sums[name].item() == pytest.approx(total, rel=1e-5)


def test_box_weight_multiplies_the_box_term_only():
    outputs, targets = random_case((3,), NUM_CLASSES + 1)
    once = SSDLoss(softmax_loss)(outputs, targets).sums
    twice = SSDLoss(softmax_loss, box_weight=2.0)(outputs, targets).sums
    assert twice["boxes"].item() == 2 * once["boxes"].item()
    assert twice["classes"].item() == once["classes"].item()


def test_total_is_the_sum_of_the_terms_over_the_count():
    sums = {"boxes": torch.tensor(6.0), "classes": torch.tensor(9.0)}
    assert LossTerms(sums, torch.tensor(3.0)).total().item() == 5.0
    assert LossTerms(sums, torch.tensor(0.0)).total().item() == 15.0


def test_terms_can_be_divided_by_another_count():
    terms = LossTerms({"boxes": torch.tensor(6.0), "classes": torch.tensor(9.0)}, torch.tensor(3.0))
    means = terms.means(torch.tensor(1.5))
    assert {name: mean.item() for name, mean in means.items()} == {"boxes": 4.0, "classes": 6.0}
    assert terms.total(torch.tensor(1.5)).item() == 10.0
    # A count below the smallest divisor is replaced by it.
    assert terms.total(torch.tensor(0.25)).item() == 15.0
    assert terms.total(torch.tensor(0.25), min_count=0.5).item() == 30.0


@LOSSES
@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0)])
def test_mean_gradient_of_two_processes_is_that_of_one(class_loss, slots, counts):
    outputs, targets = random_case(counts, slots)
    together = with_gradient(outputs)
    SSDLoss(class_loss)(together, targets).total().backward()
    apart = with_gradient(outputs)
    terms = [SSDLoss(class_loss)(*one_image(apart, targets, i)) for i in range(2)]
    mean_count = sum(one.count for one in terms) / 2
    (sum(one.total(mean_count, min_count=1 / 2) for one in terms) / 2).backward()
    # float32: divisions by the count and by 2 round differently.
    torch.testing.assert_close(apart.logits.grad, together.logits.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(apart.deltas.grad, together.deltas.grad, rtol=1e-5, atol=1e-7)
