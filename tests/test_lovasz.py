"""Lovász-softmax, against the definition of the paper in loops over pixels."""

import numpy as np
import pytest
import torch

from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.lovasz import jaccard_steps, lovasz_softmax
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.structures import IGNORE_INDEX


def one_minus_iou(wrong, truth):
    """The Jaccard loss of a label if exactly the pixels `wrong` have another prediction."""
    predicted = truth != wrong
    return 1 - (truth & predicted).sum() / (truth | predicted).sum()


def reference(logits, labels):
    """Equation 8 of the paper, with its sets of pixels as they are written there."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    losses = []
    for label in sorted(set(labels)):
        truth = labels == label
        errors = np.where(truth, 1 - probabilities[label], probabilities[label])
        wrong, loss, before = np.zeros(len(labels), bool), 0.0, 0.0
        for pixel in np.argsort(-errors):
            wrong[pixel] = True
            after = one_minus_iou(wrong, truth)
            loss += errors[pixel] * (after - before)
            before = after
        losses.append(loss)
    return np.mean(losses)


def random_pixels(num_labels=4, count=40, seed=0):
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(num_labels, count))
    return logits, generator.integers(num_labels, size=count)


def test_steps_of_four_pixels_worked_by_hand():
    # Two pixels have the label. In this order they become wrong: one of the two (IoU 1/2), one of
    # the others (1/3), the second of the two (0), the last one (0).
    steps = jaccard_steps(torch.tensor([True, False, True, False]))
    assert steps.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 3, 0])


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed):
    logits, labels = random_pixels(seed=seed)
    loss = lovasz_softmax(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(reference(logits, labels), rel=1e-6)


def test_ignored_pixels_are_as_if_they_were_not_there():
    values, labels = random_pixels(count=60)
    logits = torch.from_numpy(values).requires_grad_()
    labels[::3] = IGNORE_INDEX
    loss = lovasz_softmax(logits, torch.from_numpy(labels))
    kept = labels != IGNORE_INDEX
    assert loss.item() == pytest.approx(reference(values[:, kept], labels[kept]), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[:, ~kept] == 0).all()
    alone = torch.from_numpy(values[:, kept]).requires_grad_()
    lovasz_softmax(alone, torch.from_numpy(labels[kept])).backward()
    torch.testing.assert_close(gradient[:, kept], alone.grad)


def test_labels_that_do_not_occur_do_not_count():
    logits, labels = random_pixels()
    labels[labels > 1] = 0
    loss = lovasz_softmax(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(reference(logits, labels), rel=1e-6)


def test_is_one_minus_iou_of_certain_predictions():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    logits = 1000.0 * torch.nn.functional.one_hot(predicted, 2).T
    # IoU of label 0: 2 right of 5; of label 1: 1 right of 4.
    expected = ((1 - 2 / 5) + (1 - 1 / 4)) / 2
    assert lovasz_softmax(logits, labels).item() == pytest.approx(expected)


def test_a_perfect_prediction_costs_nothing():
    labels = torch.tensor([0, 1, 1, 2])
    assert lovasz_softmax(1000.0 * torch.nn.functional.one_hot(labels, 3).T, labels) == 0


def test_gradients_raise_the_annotated_label():
    logits, labels = random_pixels()
    logits, labels = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(labels)
    lovasz_softmax(logits, labels).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.gather(0, labels[None]).mean() < 0


# As a term of the loss


def outputs_of(logits):
    """Outputs whose cells are every second pixel, which are those that the term reads."""
    rows, columns = (torch.arange(size) * 2.0 for size in logits.shape[2:])
    return SegmentationOutputs(logits, rows, columns)


def example(num_images=3, ignored=0.3):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(num_images, 4, 6, 7, generator=generator)
    masks = torch.randint(4, (num_images, 11, 13), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < ignored] = IGNORE_INDEX
    return logits.requires_grad_(), masks.to(torch.uint8)


def test_the_term_is_the_loss_of_every_image_times_its_annotated_pixels():
    logits, masks = example()
    loss = SegmentationLoss(lovasz_weight=0.5)
    terms = loss(outputs_of(logits), masks)
    expected = 0.0
    for cells, mask in zip(logits.detach().double().numpy(), masks.numpy(), strict=True):
        seen = mask[::2, ::2]
        annotated = seen != IGNORE_INDEX
        expected += (mask != IGNORE_INDEX).sum() * reference(cells[:, annotated], seen[annotated])
    assert terms.sums["lovasz"].item() == pytest.approx(0.5 * expected, rel=1e-5)
    assert set(terms.sums) == set(loss.terms) == {"pixels", "lovasz"}
    assert terms.count == (masks != IGNORE_INDEX).sum()


def test_two_processes_sum_to_one_with_the_whole_batch():
    logits, masks = example()
    loss = SegmentationLoss(lovasz_weight=1.0)
    whole = loss(outputs_of(logits), masks)
    parts = [loss(outputs_of(logits[rows]), masks[rows]) for rows in (slice(0, 1), slice(1, 3))]
    total = sum(part.sums["lovasz"] for part in parts)
    torch.testing.assert_close(total, whole.sums["lovasz"])


def test_there_is_no_term_without_a_weight():
    logits, masks = example()
    assert set(SegmentationLoss()(outputs_of(logits), masks).sums) == {"pixels"}


@pytest.mark.parametrize("head", [DeepLabV3Config, DeepLabV3LightConfig, LRASPPConfig])
def test_every_head_takes_the_weight(head):
    assert head(lovasz_weight=0.5).build_loss().lovasz_weight == 0.5
    with pytest.raises(ConfigError, match=r"lovasz_weight: expected at least 0, got -1"):
        head(lovasz_weight=-1.0)


def test_ignored_pixels_have_no_influence():
    logits, masks = example()
    masks[:, 6:] = IGNORE_INDEX  # from the fourth row of cells on
    SegmentationLoss(lovasz_weight=1.0)(outputs_of(logits), masks).sums["lovasz"].backward()
    assert logits.grad[:, :, 3:].count_nonzero() == 0
    assert logits.grad[:, :, :3].count_nonzero() > 0


def test_only_ignored_pixels_give_zero_gradients_to_every_logit():
    logits, masks = example(ignored=1.1)
    loss = SegmentationLoss(lovasz_weight=1.0)(outputs_of(logits), masks)
    loss.total().backward()
    assert loss.sums["lovasz"] == 0
    assert logits.grad.count_nonzero() == 0


def test_a_batch_without_images_has_no_loss():
    logits, masks = example(num_images=0)
    assert SegmentationLoss(lovasz_weight=1.0)(outputs_of(logits), masks).total() == 0


def test_the_term_is_float32_under_autocast():
    logits, masks = example()
    loss = SegmentationLoss(lovasz_weight=1.0)
    expected = loss(outputs_of(logits), masks).sums["lovasz"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(outputs_of(logits), masks).sums["lovasz"] == expected
