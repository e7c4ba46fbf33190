import pytest
import torch

from mbv2det.detection.matcher import Matcher, assign_best_anchors
from mbv2det.structures import BoxTargets

# Four anchors in a row, 10 x 10 px each.
ROW = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 10, 10.0] for i in range(4)])


def targets_of(*images):
    """Returns padded targets; each image is a list of (box, label, ignore)."""
    most = max(1, *(len(image) for image in images))
    boxes = torch.zeros(len(images), most, 4)
    labels = torch.full((len(images), most), -1)
    ignore = torch.zeros(len(images), most, dtype=torch.bool)
    for i, image in enumerate(images):
        for j, (box, label, ignored) in enumerate(image):
            boxes[i, j], labels[i, j], ignore[i, j] = torch.tensor(box), label, ignored
    return BoxTargets(boxes, labels, ignore, torch.ones(len(images), dtype=torch.bool))


def random_boxes(count, generator):
    low = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([low, low + 5 + torch.rand(count, 2, generator=generator) * 35], dim=1)


def random_image(count, generator):
    boxes = random_boxes(count, generator).tolist()
    return [(box, i % 3, i % 4 == 3) for i, box in enumerate(boxes)]


def greedy_by_sorting(iou):
    """Pairs by descending overlap; each is taken while its object and its anchor are free."""
    pairs = [(iou[n, a].item(), n, a) for n in range(iou.shape[0]) for a in range(iou.shape[1])]
    owner, settled = [-1] * iou.shape[1], set()
    for overlap, n, a in sorted(pairs, reverse=True):
        if overlap > 0 and n not in settled and owner[a] < 0:
            owner[a] = n
            settled.add(n)
    return owner


def test_matches_of_a_hand_computed_row():
    # Object 0 is 2..12: IoU 8 / 12 with anchor 0 and 2 / 18 with anchor 1.
    # Object 1 is 24..40: IoU 6 / 20 with anchor 2 and 10 / 16 with anchor 3.
    image = [([2.0, 0.0, 12.0, 10.0], 0, False), ([24.0, 0.0, 40.0, 10.0], 1, False)]
    matches = Matcher()(targets_of(image), ROW)
    assert matches.positive.tolist() == [[True, False, False, True]]
    assert matches.negative.tolist() == [[False, True, True, False]]
    assert matches.object_index[matches.positive].tolist() == [0, 1]


def test_every_anchor_over_the_threshold_is_positive():
    # 0..20: IoU 10 / 20 with anchors 0 and 1, just at the threshold.
    matches = Matcher(threshold=0.5)(targets_of([([0.0, 0.0, 20.0, 10.0], 0, False)]), ROW)
    assert matches.positive.tolist() == [[True, True, False, False]]


def test_an_object_below_the_threshold_gets_its_best_anchor():
    # 4 x 4 inside anchor 2: IoU 16 / 100.
    matches = Matcher()(targets_of([([23.0, 3.0, 27.0, 7.0], 0, False)]), ROW)
    assert matches.positive.tolist() == [[False, False, True, False]]


def test_an_anchor_over_two_objects_takes_the_larger_overlap():
    # With anchor 0: 0..8 has IoU 0.8, 0..10 x 0..6 has 0.6.
    image = [([0.0, 0.0, 10.0, 6.0], 0, False), ([0.0, 0.0, 8.0, 10.0], 1, False)]
    matches = Matcher()(targets_of(image), ROW[:1])
    assert matches.positive.tolist() == [[True]]
    assert matches.object_index.tolist() == [[1]]


def test_object_that_loses_its_best_anchor_takes_the_next_best():
    # Anchor 0 is the best of both: object 0 (0..10) with IoU 1, object 1 (0..15) with 10 / 15,
    # against 5 / 20 with anchor 1.
    image = [([0.0, 0.0, 10.0, 10.0], 0, False), ([0.0, 0.0, 15.0, 10.0], 1, False)]
    for order in ([0, 1], [1, 0]):
        matches = Matcher()(targets_of([image[i] for i in order]), ROW)
        assert matches.positive.tolist() == [[True, True, False, False]]
        assert [order[n] for n in matches.object_index[0, :2].tolist()] == [0, 1]


def test_best_anchor_of_an_object_is_not_given_to_another_over_the_threshold():
    # Anchor 1 overlaps object 0 (0..20) by 0.5 and is the only one that overlaps object 1 (13..17).
    image = [([0.0, 0.0, 20.0, 10.0], 0, False), ([13.0, 3.0, 17.0, 7.0], 1, False)]
    matches = Matcher()(targets_of(image), ROW)
    assert matches.object_index[0, :2].tolist() == [0, 1]
    assert matches.positive.tolist() == [[True, True, False, False]]


def test_every_object_gets_an_anchor():
    generator = torch.Generator().manual_seed(0)
    anchors = random_boxes(300, generator)
    image = [(box, 0, False) for box in random_boxes(12, generator).tolist()]
    matches = Matcher(threshold=0.99)(targets_of(image), anchors)
    assert set(matches.object_index[matches.positive].tolist()) == set(range(12))


def test_order_of_the_objects_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    anchors, image = random_boxes(200, generator), random_image(9, generator)
    order = torch.randperm(9, generator=generator).tolist()
    first = Matcher()(targets_of(image), anchors)
    second = Matcher()(targets_of([image[i] for i in order]), anchors)
    assert torch.equal(first.positive, second.positive)
    assert torch.equal(first.negative, second.negative)
    renamed = torch.tensor(order)[second.object_index]
    assert torch.equal(first.object_index[first.positive], renamed[second.positive])


def test_a_batch_matches_like_its_images_one_by_one():
    generator = torch.Generator().manual_seed(2)
    anchors = random_boxes(150, generator)
    images = [random_image(n, generator) for n in (5, 0, 8, 1)]
    together = Matcher()(targets_of(*images), anchors)
    for i, image in enumerate(images):
        alone = Matcher()(targets_of(image), anchors)
        assert torch.equal(together.positive[i], alone.positive[0])
        assert torch.equal(together.negative[i], alone.negative[0])
        positive = alone.positive[0]
        assert torch.equal(together.object_index[i][positive], alone.object_index[0][positive])


def test_anchors_inside_an_ignored_object_have_no_target():
    # A crowd over 0..25: anchors 0 and 1 wholly inside, anchor 2 by half, anchor 3 not at all.
    matches = Matcher()(targets_of([([0.0, 0.0, 25.0, 10.0], 0, True)]), ROW)
    assert matches.positive.tolist() == [[False] * 4]
    assert matches.negative.tolist() == [[False, False, False, True]]


def test_an_ignored_object_does_not_affect_matching():
    crowd, inside = ([0.0, 0.0, 40.0, 10.0], 0, True), ([10.0, 0.0, 20.0, 10.0], 1, False)
    matches = Matcher()(targets_of([crowd, inside]), ROW)
    assert matches.positive.tolist() == [[False, True, False, False]]
    assert matches.object_index[0, 1].item() == 1
    assert not matches.negative.any()


def test_an_image_without_objects_is_all_negative():
    matches = Matcher()(targets_of([]), ROW)
    assert not matches.positive.any()
    assert matches.negative.all()


def test_image_without_annotations_has_no_negatives():
    image = [([2.0, 0.0, 12.0, 10.0], 0, False)]
    targets = targets_of(image, [], [])
    targets.annotated[1] = False
    matches = Matcher()(targets, ROW)
    assert matches.negative.tolist() == [[False, True, True, True], [False] * 4, [True] * 4]
    assert matches.positive.tolist() == [[True, False, False, False], [False] * 4, [False] * 4]


def test_padding_of_the_targets_matches_no_anchor_at_the_origin():
    tiny = torch.tensor([[0.0, 0.0, 1.0, 1.0], [50.0, 50.0, 60.0, 60.0]])
    far = [([50.0, 50.0, 60.0, 60.0], 0, False)]
    matches = Matcher()(targets_of(far, far * 3), tiny)
    assert matches.positive[0].tolist() == [False, True]
    assert matches.negative[0].tolist() == [True, False]


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_greedy_by_descending_iou(seed):
    iou = torch.rand(3, 7, 12, generator=torch.Generator().manual_seed(seed))
    iou = iou.where(iou > 0.4, 0)  # some pairs do not overlap
    expected = [greedy_by_sorting(image) for image in iou]
    assert assign_best_anchors(iou).tolist() == expected


def test_an_anchor_waits_for_a_better_object_that_loses_elsewhere():
    # Pairs in order: (0, 0) 0.9, then (1, 0) 0.8 is refused, (1, 1) 0.7 before (2, 1) 0.6.
    iou = torch.tensor([[[0.9, 0.0, 0.0], [0.8, 0.7, 0.0], [0.0, 0.6, 0.5]]])
    assert assign_best_anchors(iou).tolist() == [[0, 1, 2]]


def test_with_more_objects_than_anchors_the_largest_overlaps_are_assigned():
    # Pairs in order: (2, 0) 0.9, (0, 0) 0.8, (1, 1) 0.7.
    iou = torch.tensor([[[0.8, 0.6], [0.5, 0.7], [0.9, 0.2]]])
    assert assign_best_anchors(iou).tolist() == [[2, 1]]
