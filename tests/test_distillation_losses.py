"""The losses that compare a student with its teacher: worked by hand, in loops, and at equality."""

import math
from dataclasses import fields, replace

import pytest
import torch
from points import BINS, NUM_CLASSES, random_case, sigmoid, softmax

from mbv2det.detection.anchors import AnchorSpec, make_anchors
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.gfl_distillation import GFLDistillation
from mbv2det.detection.outputs import PointOutputs, SSDOutputs
from mbv2det.detection.ssd_distillation import (
    SSDDistillation,
    focal_distillation,
    sigmoid_distillation,
    softmax_distillation,
)
from mbv2det.distillation import softened_divergence
from mbv2det.errors import ConfigError
from mbv2det.segmentation.distillation import SegmentationDistillation
from mbv2det.segmentation.outputs import SegmentationOutputs

pytestmark = pytest.mark.usefixtures("one_thread")

T = 2.0
ANCHORS = make_anchors(AnchorSpec(), ((3, 4), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1)), (64, 96))
CLASS_LOSSES = {
    "softmax": SSDDistillation(softmax_distillation, ClassSlots(3, "softmax", True), T, 2.0),
    "sigmoid": SSDDistillation(sigmoid_distillation, ClassSlots(3, "sigmoid", True), T, 2.0),
    "focal": SSDDistillation(focal_distillation, ClassSlots(3, "sigmoid", False), T, 2.0),
}


def ssd_outputs(slots, seed, images=2, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, len(ANCHORS), slots.num_slots, generator=generator)
    deltas = torch.randn(images, len(ANCHORS), 4, generator=generator)
    return SSDOutputs(logits, deltas, ANCHORS)


def point_outputs(seed, images=2):
    return random_case((0,) * images, seed)[0]


def pixel_outputs(seed, rows=(0.0, 8.0, 16.0), columns=(0.0, 8.0), images=2):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 3, len(rows), len(columns), generator=generator)
    return SegmentationOutputs(logits, torch.tensor(rows), torch.tensor(columns))


# Each loss with a function from a seed to outputs.
LOSSES = {
    **{
        name: (loss, lambda seed, slots=loss.slots: ssd_outputs(slots, seed))
        for name, loss in CLASS_LOSSES.items()
    },
    "points": (GFLDistillation(T), point_outputs),
    "pixels": (SegmentationDistillation(T), pixel_outputs),
}


def per_image(outputs):
    """Returns the fields of outputs that have a row for each image, by name."""
    values = {f.name: getattr(outputs, f.name) for f in fields(outputs)}
    names = ("logits", "deltas", "sides")
    return {name: value for name, value in values.items() if name in names}


def mapped(outputs, function):
    return replace(outputs, **{name: function(t) for name, t in per_image(outputs).items()})


def divergence(student, teacher, temperature=T):
    """Kullback-Leibler divergence of softened probabilities, times the squared temperature."""
    p, q = (softmax([v / temperature for v in row]) for row in (teacher, student))
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def binary_divergence(student, teacher):
    p, q = sigmoid(teacher), sigmoid(student)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def quality_focal(student, teacher):
    p, q = sigmoid(teacher), sigmoid(student)
    return abs(p - q) ** 2 * -(p * math.log(q) + (1 - p) * math.log(1 - q))


def smooth_l1(a, b):
    distance = abs(a - b)
    return distance**2 / 2 if distance < 1 else distance - 0.5


def test_divergence_worked_by_hand():
    # At temperature 2 the teacher's logits (2 ln 3, 0) are probabilities of 3/4 and 1/4.
    student, teacher = torch.zeros(2), torch.tensor([2 * math.log(3), 0.0])
    expected = 2**2 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert softened_divergence(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_is_that_of_the_softened_cross_entropy():
    student, teacher = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    softened_divergence(student, teacher, 3.0).sum().backward()
    # Hinton et al. 2015, eq. 2, times the squared temperature.
    expected = 3.0 * ((student.detach() / 3).softmax(-1) - (teacher / 3).softmax(-1))
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_terms_and_gradients_are_zero_where_student_and_teacher_are_equal(name):
    loss, outputs = LOSSES[name]
    teacher = outputs(0)
    student = mapped(teacher, lambda t: t.clone().requires_grad_())
    terms = loss(student, teacher)
    assert terms.count > 0
    # Differences of float32 sums of some thousand terms.
    for value in terms.sums.values():
        assert value.item() == pytest.approx(0, abs=1e-3)
    terms.total().backward()
    for tensor in per_image(student).values():
        torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_terms_are_positive_and_train_the_student_elsewhere(name):
    loss, outputs = LOSSES[name]
    student = mapped(outputs(1), lambda t: t.clone().requires_grad_())
    terms = loss(student, outputs(0))
    assert set(terms.sums) == set(loss.terms)
    assert all(value > 0 for value in terms.sums.values())
    terms.total().backward()
    assert all((tensor.grad != 0).any() for tensor in per_image(student).values())
    assert not terms.count.requires_grad


@pytest.mark.parametrize("name", LOSSES)
def test_terms_of_a_batch_are_the_sums_over_its_images(name):
    """With it, dividing by the mean count of all processes makes several train as one."""
    loss, outputs = LOSSES[name]
    student, teacher = outputs(1), outputs(0)
    together = loss(student, teacher)
    alone = [
        loss(*(mapped(o, lambda t, i=i: t[i : i + 1]) for o in (student, teacher))) for i in (0, 1)
    ]
    assert together.count.item() == pytest.approx(sum(t.count.item() for t in alone), rel=1e-6)
    for term in loss.terms:
        total = sum(terms.sums[term].item() for terms in alone)
        assert together.sums[term].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_outputs_give_the_float32_loss_of_their_values(name):
    loss, outputs = LOSSES[name]
    student, teacher = (mapped(outputs(seed), lambda t: t.bfloat16()) for seed in (1, 0))
    full = [mapped(o, lambda t: t.float()) for o in (student, teacher)]
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(student, teacher)
    expected = loss(*full)
    for term in loss.terms:
        assert terms.sums[term].dtype == torch.float32
        assert terms.sums[term].item() == expected.sums[term].item()


def test_pixels_worked_by_hand():
    # One image of two cells and two labels, at temperature 1. The student says 1/2 and 1/2 on
    # both; the teacher says 3/4 on the first, and the same as the student on the second.
    student = SegmentationOutputs(torch.zeros(1, 2, 1, 2), torch.zeros(1), torch.tensor([0.0, 8.0]))
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])[None, :, None]
    teacher = replace(student, logits=logits)
    terms = SegmentationDistillation(1.0)(student, teacher)
    assert terms.count.item() == 2
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert terms.sums["distill_pixels"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("finer", ["teacher", "student"])
def test_pixels_are_compared_on_the_finer_grid(finer):
    coarse = pixel_outputs(0, rows=(0.0, 8.0, 16.0), columns=(0.0, 8.0))
    fine = pixel_outputs(1, rows=(0.0, 4.0, 8.0, 12.0, 16.0), columns=(0.0, 4.0, 8.0))
    student, teacher = (coarse, fine) if finer == "teacher" else (fine, coarse)
    terms = SegmentationDistillation(T)(student, teacher)

    def between(image, row, column):
        """Logits of the coarse grid at a cell of the fine one: means of the cells around it."""
        around = [
            coarse.logits[image, :, r, c]
            for r in {row // 2, (row + 1) // 2}
            for c in {column // 2, (column + 1) // 2}
        ]
        return (sum(around) / len(around)).tolist()

    expected = 0.0
    for image in range(2):
        for row in range(5):
            for column in range(3):
                rows = [fine.logits[image, :, row, column].tolist(), between(image, row, column)]
                expected += divergence(*(rows if finer == "student" else rows[::-1]))
    assert terms.count.item() == 2 * 5 * 3
    assert terms.sums["distill_pixels"].item() == pytest.approx(expected, rel=1e-5)


def test_points_equal_their_definition_in_loops():
    student, teacher = point_outputs(1), point_outputs(0)
    teacher.logits -= 2  # so that some points are below the smallest score
    terms = GFLDistillation(T, distribution_weight=5.0)(student, teacher)
    count = distribution = classes = 0.0
    confident = 0
    for image in range(2):
        for point in range(len(student.points)):
            rows = [o.logits[image, point].tolist() for o in (student, teacher)]
            classes += sum(quality_focal(s, t) for s, t in zip(*rows, strict=True))
            best = max(sigmoid(value) for value in rows[1])
            if best >= 0.1:
                confident += 1
                count += best
                for side in range(4):
                    rows = [o.sides[image, point, side].tolist() for o in (student, teacher)]
                    distribution += best * divergence(*rows) / 4
    assert 0 < confident < 2 * len(student.points)
    assert terms.count.item() == pytest.approx(count, rel=1e-5)
    assert terms.sums["distill_classes"].item() == pytest.approx(classes, rel=1e-5)
    assert terms.sums["distill_distribution"].item() == pytest.approx(5 * distribution, rel=1e-5)


def test_points_worked_by_hand():
    # Two points, one class, two bins, temperature 1. The teacher's scores are 3/4 and 1/20; the
    # student's 1/2. Of the first point's sides one differs: 3/4 against 1/2.
    sides = torch.zeros(1, 2, 4, 2)
    teacher_sides = sides.clone()
    teacher_sides[0, 0, 1, 0] = math.log(3)
    teacher_sides[0, 1] += torch.tensor([5.0, 0.0])  # not confident
    points, levels = torch.ones(2, 4), torch.zeros(2, dtype=torch.int64)
    student = PointOutputs(torch.zeros(1, 2, 1), sides, points, levels)
    logits = torch.tensor([math.log(3), math.log(1 / 19)])[None, :, None]
    teacher = PointOutputs(logits, teacher_sides, points, levels)
    terms = GFLDistillation(1.0, distribution_weight=1.0)(student, teacher)
    assert terms.count.item() == pytest.approx(0.75)
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert terms.sums["distill_distribution"].item() == pytest.approx(0.75 * kl / 4, rel=1e-5)
    # The cross entropy with a score of 1/2 is ln 2 for every target.
    classes = (0.25**2 + 0.45**2) * math.log(2)
    assert terms.sums["distill_classes"].item() == pytest.approx(classes, rel=1e-5)


def looped_anchors(name, student, teacher):
    """Returns count, box term and class term of SSD, anchor by anchor."""
    count, boxes, classes = 0, 0.0, 0.0
    for image in range(len(student.logits)):
        foreground, rest = [], []
        for anchor in range(len(ANCHORS)):
            rows = [o.logits[image, anchor].tolist() for o in (student, teacher)]
            scores = softmax(rows[1]) if name == "softmax" else [sigmoid(v) for v in rows[1]]
            if name == "softmax":
                loss = divergence(*rows)
            elif name == "sigmoid":
                loss = sum(binary_divergence(s, t) for s, t in zip(*rows, strict=True))
            else:
                loss = sum(quality_focal(s, t) for s, t in zip(*rows, strict=True))
            if max(scores[name != "focal" :]) >= 0.3:
                foreground.append(loss)
                deltas = [o.deltas[image, anchor].tolist() for o in (student, teacher)]
                boxes += sum(smooth_l1(a, b) for a, b in zip(*deltas, strict=True))
            else:
                rest.append(loss)
        count += len(foreground)
        hardest = sorted(rest, reverse=True)
        if name != "focal":
            hardest = hardest[: max(3, 3 * len(foreground))]
        classes += sum(foreground) + sum(hardest)
    return count, boxes, classes


@pytest.mark.parametrize("name", CLASS_LOSSES)
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_anchors_equal_their_definition_in_loops(name, shift):
    loss = CLASS_LOSSES[name]
    student, teacher = ssd_outputs(loss.slots, 1), ssd_outputs(loss.slots, 0)
    teacher.logits[..., int(loss.slots.background) :] -= shift  # fewer anchors in the foreground
    terms = loss(student, teacher)
    count, boxes, classes = looped_anchors(name, student, teacher)
    assert 0 < count < 2 * len(ANCHORS)
    assert terms.count.item() == count
    assert terms.sums["distill_boxes"].item() == pytest.approx(2 * boxes, rel=1e-5)
    assert terms.sums["distill_classes"].item() == pytest.approx(classes, rel=1e-5)


def test_anchors_worked_by_hand():
    # Two anchors, background and one class, temperature 1. The teacher's score of the class is 3/4
    # and 1/4, the student's 1/2. The deltas of the first differ by 1/2 and 2.
    slots = ClassSlots(1, "softmax", background=True)
    loss = SSDDistillation(softmax_distillation, slots, temperature=1.0)
    teacher_logits = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])[None]
    student = SSDOutputs(torch.zeros(1, 2, 2), torch.zeros(1, 2, 4), ANCHORS[:2])
    deltas = torch.tensor([[0.5, 2.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]])[None]
    terms = loss(student, SSDOutputs(teacher_logits, deltas, ANCHORS[:2]))
    assert terms.count.item() == 1
    assert terms.sums["distill_boxes"].item() == pytest.approx(0.5**2 / 2 + 1.5)
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert terms.sums["distill_classes"].item() == pytest.approx(2 * kl, rel=1e-5)


@pytest.mark.parametrize("name", [*CLASS_LOSSES, "points"])
def test_a_teacher_that_finds_nothing_teaches_no_boxes(name):
    loss, outputs = LOSSES[name]
    teacher = outputs(0)
    first_class = int(name in ("softmax", "sigmoid"))
    teacher.logits[..., first_class:] -= 20
    student = mapped(outputs(1), lambda t: t.clone().requires_grad_())
    terms = loss(student, teacher)
    assert terms.count.item() == 0
    assert terms.sums[loss.terms[0]].item() == 0
    terms.total().backward()
    assert all(tensor.grad.isfinite().all() for tensor in per_image(student).values())
    assert (student.logits.grad != 0).any()


def test_other_anchors_are_refused():
    loss = CLASS_LOSSES["softmax"]
    student = ssd_outputs(loss.slots, 0)
    loss.check(student, ssd_outputs(loss.slots, 1))
    fewer = SSDOutputs(student.logits[:, :5], student.deltas[:, :5], ANCHORS[:5])
    for teacher in (replace(student, anchors=ANCHORS + 1), fewer):
        with pytest.raises(ConfigError, match=r"student's 84 anchors.*min_scale and max_scale"):
            loss.check(student, teacher)


def test_other_points_and_bins_are_refused():
    loss, student = GFLDistillation(T), point_outputs(0)
    loss.check(student, point_outputs(1))
    with pytest.raises(ConfigError, match=r"student's \d+ points"):
        loss.check(student, replace(student, points=student.points + 1))
    with pytest.raises(ConfigError, match=f"bins of {BINS}, got 4"):
        loss.check(student, replace(student, sides=student.sides[..., :4]))
    assert student.logits.shape[-1] == NUM_CLASSES
