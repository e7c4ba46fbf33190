import math

import pytest
import torch
import torch.nn.functional as F

from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.structures import IGNORE_INDEX

NUM_LABELS = 5


def outputs_of(logits, auxiliary=None, stride=16):
    rows, columns = (torch.arange(size) * float(stride) for size in logits.shape[2:])
    return SegmentationOutputs(logits, rows, columns, auxiliary)


def example(num_images=2, ignored=0.3, seed=0):
    """Logits of two heads for 3x4 cells, masks of 33x49 pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits, auxiliary = 3 * torch.randn(2, num_images, NUM_LABELS, 3, 4, generator=generator)
    masks = torch.randint(NUM_LABELS, (num_images, 33, 49), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < ignored] = IGNORE_INDEX
    return logits.requires_grad_(), auxiliary.requires_grad_(), masks.to(torch.uint8)


def reference(logits, masks):
    """Computes the loss as DeepLab: aligned corners, exact if cells are in the corner pixels."""
    full = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=True)
    chosen = full.log_softmax(dim=1).movedim(1, -1)[masks != IGNORE_INDEX]
    return -chosen.gather(1, masks[masks != IGNORE_INDEX].long()[:, None]).sum()


def test_sums_cross_entropy_over_the_pixels_that_are_not_ignored():
    logits, _, masks = example()
    loss = SegmentationLoss()(outputs_of(logits), masks)
    # Sums of 2,300 float32 terms of about 3.
    torch.testing.assert_close(loss.sums["pixels"], reference(logits, masks), rtol=1e-5, atol=0)
    assert loss.count == (masks != IGNORE_INDEX).sum()
    assert set(loss.sums) == {"pixels"}


def test_gradients_are_those_of_interpolation_with_aligned_corners():
    logits, _, masks = example()
    SegmentationLoss()(outputs_of(logits), masks).sums["pixels"].backward()
    (expected,) = torch.autograd.grad(reference(logits, masks), logits)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-4)  # of about 50


def test_loss_of_uniform_logits_is_the_logarithm_of_the_number_of_labels():
    _, _, masks = example()
    loss = SegmentationLoss()(outputs_of(torch.zeros(2, NUM_LABELS, 3, 4)), masks)
    assert loss.total().item() == pytest.approx(math.log(NUM_LABELS), rel=1e-5)


def test_batch_is_the_sum_of_its_images():
    logits, _, masks = example(num_images=3)
    together = SegmentationLoss()(outputs_of(logits), masks)
    single = [SegmentationLoss()(outputs_of(logits[i : i + 1]), masks[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together.sums["pixels"], sum(one.sums["pixels"] for one in single))
    assert together.count == sum(one.count for one in single)


def test_auxiliary_term_is_weighted_and_over_the_same_pixels():
    logits, auxiliary, masks = example()
    loss = SegmentationLoss(auxiliary_weight=0.4)(outputs_of(logits, auxiliary), masks)
    alone = SegmentationLoss()(outputs_of(auxiliary), masks)
    torch.testing.assert_close(loss.sums["auxiliary"], 0.4 * alone.sums["pixels"])
    assert loss.count == alone.count


@pytest.mark.parametrize("weight", [0.0, 0.4])
@pytest.mark.parametrize("has_auxiliary", [True, False])
def test_auxiliary_term_needs_a_weight_and_a_head(weight, has_auxiliary):
    logits, auxiliary, masks = example()
    loss = SegmentationLoss(weight)
    sums = loss(outputs_of(logits, auxiliary if has_auxiliary else None), masks).sums
    assert ("auxiliary" in sums) == (has_auxiliary and weight > 0)
    if has_auxiliary:
        assert loss.terms == tuple(sums)


def test_only_ignored_pixels_give_zero_gradients_to_every_logit():
    logits, auxiliary, masks = example(ignored=1.1)
    loss = SegmentationLoss(auxiliary_weight=0.4)(outputs_of(logits, auxiliary), masks)
    loss.total().backward()
    assert loss.count == loss.total() == 0
    assert logits.grad.count_nonzero() == auxiliary.grad.count_nonzero() == 0


def test_ignored_image_does_not_change_the_loss_of_others():
    logits, _, masks = example()
    alone = SegmentationLoss()(outputs_of(logits[:1]), masks[:1])
    masks[1] = IGNORE_INDEX
    together = SegmentationLoss()(outputs_of(logits), masks)
    assert together.total() == alone.total()


def test_loss_of_a_batch_without_images_is_zero():
    logits, _, masks = example(num_images=0)
    loss = SegmentationLoss()(outputs_of(logits), masks)
    assert loss.count == loss.total() == 0


def test_loss_is_float32_under_autocast():
    logits, _, masks = example()
    logits = logits.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SegmentationLoss()(outputs_of(logits), masks)
    expected = SegmentationLoss()(outputs_of(logits.float()), masks)
    assert loss.sums["pixels"].dtype == torch.float32
    assert loss.sums["pixels"] == expected.sums["pixels"]
