import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import nms

from mbv2det.detection.box_coder import BoxCoder
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.geometry import Frame

SIGMOID = ClassSlots(2, "sigmoid", background=False)


def logit(score):
    return math.log(score / (1 - score))


def outputs_of(boxes, scores):
    """Outputs for one image whose anchors are the boxes themselves, so that all deltas are 0."""
    boxes, scores = torch.tensor(boxes), torch.tensor(scores)
    return SSDOutputs(scores.logit()[None], torch.zeros(1, len(boxes), 4), boxes)


def random_outputs(num_images=1, num_anchors=60, num_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(num_anchors, 2, generator=generator) * 60
    sides = 10 + torch.rand(num_anchors, 2, generator=generator) * 25
    return SSDOutputs(
        torch.randn(num_images, num_anchors, num_classes, generator=generator) * 2,
        torch.randn(num_images, num_anchors, 4, generator=generator),
        torch.cat([low, low + sides], dim=1),
    )


def test_scores_of_softmax_slots_drop_background():
    # exp of ln 2, 0, ln 5: 2 + 1 + 5 = 8.
    logits = torch.tensor([[math.log(2), 0.0, math.log(5)]])
    scores = ClassSlots(2, "softmax", background=True).scores(logits)
    torch.testing.assert_close(scores, torch.tensor([[1 / 8, 5 / 8]]), rtol=1e-6, atol=0)


def test_scores_of_sigmoid_slots_are_independent():
    logits = torch.tensor([[0.0, math.log(3)]])
    torch.testing.assert_close(
        SIGMOID.scores(logits), torch.tensor([[0.5, 0.75]]), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("background", "slots"), [(True, 4), (False, 3)])
def test_number_of_slots(background, slots):
    assert ClassSlots(3, "sigmoid", background).num_slots == slots


def test_scores_of_bfloat16_logits_are_float32():
    assert SIGMOID.scores(torch.zeros(1, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_detections_of_a_hand_computed_image():
    # Anchor 0 suppresses anchor 1 in class 0: IoU 9 / 11 (10 x 10 shifted by 1). Class 1 is apart.
    outputs = outputs_of(
        [[10.0, 10.0, 20.0, 20.0], [11.0, 10.0, 21.0, 20.0], [50.0, 40.0, 70.0, 90.0]],
        [[0.9, 0.1], [0.8, 0.6], [0.2, 0.7]],
    )
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.3)(outputs, [Frame((100, 100))])
    assert detections.labels.tolist() == [0, 1, 1]
    assert detections.boxes.tolist() == [
        [10.0, 10.0, 20.0, 20.0],
        [50.0, 40.0, 70.0, 90.0],
        [11.0, 10.0, 21.0, 20.0],
    ]
    # float32 logit and sigmoid
    torch.testing.assert_close(detections.scores, torch.tensor([0.9, 0.7, 0.6]), rtol=0, atol=1e-6)


def test_deltas_move_the_box():
    # dx = 10 * 0.5 moves half a width; dw = 5 ln 2 doubles it: centre 15 -> 20, width 10 -> 20.
    outputs = outputs_of([[10.0, 10.0, 20.0, 20.0]], [[0.9, 0.1]])
    outputs.deltas[:] = torch.tensor([5.0, 0.0, 5 * math.log(2), 0.0])
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(outputs, [Frame((100, 100))])
    expected = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
    torch.testing.assert_close(detections.boxes, expected, rtol=0, atol=1e-5)  # float32 at 30


def test_boxes_are_in_pixels_of_the_original_file():
    # A 500 x 1000 (h x w) original fitted into 320 x 320: scale 0.32, content 160 rows high.
    # x: 32 / 0.32 = 100, 160 / 0.32 = 500; y: 16 / 0.32 = 50; 200 lies in the padding, clipped.
    outputs = outputs_of([[32.0, 16.0, 160.0, 200.0]], [[0.9, 0.1]])
    frame = Frame((500, 1000), (0.32, 0.32))
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(outputs, [frame])
    expected = torch.tensor([[100.0, 50.0, 500.0, 500.0]])
    torch.testing.assert_close(detections.boxes, expected, rtol=1e-6, atol=0)


def test_each_axis_of_a_stretched_image_has_its_own_scale():
    # 640 x 160 (h x w) stretched to 320 x 320: y halves, x doubles.
    outputs = outputs_of([[32.0, 16.0, 160.0, 200.0]], [[0.9, 0.1]])
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(
        outputs, [Frame((640, 160), (0.5, 2.0))]
    )
    assert detections.boxes.tolist() == [[16.0, 32.0, 80.0, 400.0]]


def test_offset_is_subtracted_before_scaling():
    outputs = outputs_of([[32.0, 16.0, 160.0, 200.0]], [[0.9, 0.1]])
    frame = Frame((400, 400), (0.5, 0.5), (6.0, 2.0))
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(outputs, [frame])
    # x: (32 - 2) * 2, (160 - 2) * 2; y: (16 - 6) * 2, (200 - 6) * 2
    assert detections.boxes.tolist() == [[60.0, 20.0, 316.0, 388.0]]


def test_a_box_wholly_outside_the_image_is_dropped():
    boxes = [[120.0, 10.0, 140.0, 20.0], [10.0, 10.0, 20.0, 20.0]]
    outputs = outputs_of(boxes, [[0.9, 0.1], [0.8, 0.1]])
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(outputs, [Frame((100, 100))])
    assert detections.boxes.tolist() == [[10.0, 10.0, 20.0, 20.0]]


@pytest.mark.parametrize("nms_iou", [0.3, 0.6])
def test_nms_is_applied_to_each_class_alone(nms_iou):
    outputs = random_outputs()
    slots = ClassSlots(3, "sigmoid", background=False)
    postprocess = SSDPostprocess(slots, score_threshold=0.2, nms_iou=nms_iou, max_detections=500)
    (detections,) = postprocess(outputs, [Frame((100, 100))])
    boxes = BoxCoder().decode(outputs.deltas[0], outputs.anchors).clamp(0, 100)
    scores = outputs.logits[0].sigmoid()
    for label in range(3):
        chosen = (scores[:, label] >= 0.2).nonzero()[:, 0]
        kept = chosen[nms(boxes[chosen], scores[chosen, label], nms_iou)]
        assert 0 < len(kept) < len(chosen)
        ours = detections[detections.labels == label]
        # Mapping to a frame of scale one may round in the last place.
        torch.testing.assert_close(ours.boxes, boxes[kept], rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(ours.scores, scores[kept, label], rtol=0, atol=0)


def test_detections_are_sorted_by_score_and_limited_in_number():
    outputs = random_outputs()
    postprocess = SSDPostprocess(ClassSlots(3, "sigmoid", False), max_detections=17)
    frames = [Frame((100, 100))]
    (detections,) = postprocess(outputs, frames)
    (everything,) = SSDPostprocess(ClassSlots(3, "sigmoid", False), max_detections=999)(
        outputs, frames
    )
    assert len(detections) == 17 < len(everything)
    assert detections.scores.tolist() == sorted(everything.scores.tolist(), reverse=True)[:17]


def test_only_the_best_candidates_of_each_class_enter_nms():
    outputs = random_outputs()
    slots = ClassSlots(3, "sigmoid", False)
    (detections,) = SSDPostprocess(slots, nms_iou=1.0, candidates_per_class=5)(
        outputs, [Frame((100, 100))]
    )
    assert detections.labels.bincount().tolist() == [5, 5, 5]
    best = outputs.logits[0].sigmoid().topk(5, dim=0).values
    assert sorted(detections.scores.tolist()) == sorted(best.flatten().tolist())


def detections_of_every_class(outputs, limits):
    """Scores and labels of the best detections after NMS of every class on its own."""
    scores = outputs.logits[0].sigmoid()
    boxes = BoxCoder().decode(outputs.deltas[0], outputs.anchors).clamp(0, 100)
    left = []
    for label, column in enumerate(scores.T):
        top = column.topk(min(limits["candidates_per_class"], len(column))).indices
        chosen = top[(column[top] >= limits["score_threshold"])]
        chosen = chosen[((boxes[chosen, 2:] - boxes[chosen, :2]) > 0).all(dim=1)]
        kept = chosen[nms(boxes[chosen], column[chosen], limits["nms_iou"])]
        left += [(column[anchor].item(), label) for anchor in kept]
    return sorted(left, reverse=True)[: limits["max_detections"]]


@given(
    st.integers(0, 99),
    st.integers(1, 60),
    st.integers(1, 4),
    st.fixed_dictionaries(
        {
            "score_threshold": st.sampled_from([0.0, 0.3, 0.6, 0.9]),
            "nms_iou": st.sampled_from([0.1, 0.45, 0.9]),
            "max_detections": st.integers(1, 80),
            "candidates_per_class": st.integers(1, 70),
        }
    ),
)
def test_looking_at_the_best_candidates_first_changes_nothing(seed, anchors, classes, limits):
    outputs = random_outputs(num_anchors=anchors, num_classes=classes, seed=seed)
    postprocess = SSDPostprocess(ClassSlots(classes, "sigmoid", False), **limits)
    (detections,) = postprocess(outputs, [Frame((100, 100))])
    expected = detections_of_every_class(outputs, limits)
    assert detections.labels.tolist() == [label for _, label in expected]
    scores = torch.tensor([score for score, _ in expected])
    # A sigmoid's last place depends on where in a vector register the value lies.
    torch.testing.assert_close(detections.scores, scores, rtol=1e-6, atol=0)


def test_the_rest_is_not_looked_at_where_the_best_candidates_suffice(monkeypatch):
    def fail(*_):
        raise AssertionError("looked at every class")

    monkeypatch.setattr(SSDPostprocess, "_best_of_each_class", fail)
    postprocess = SSDPostprocess(ClassSlots(3, "sigmoid", False), nms_iou=1.0, max_detections=17)
    (detections,) = postprocess(random_outputs(num_anchors=500), [Frame((100, 100))])
    assert len(detections) == 17


def test_the_score_threshold_is_inclusive():
    # sigmoid(0) is exactly 0.5; the next float below is not enough.
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 29.0, 29.0]])
    logits = torch.tensor([[[0.0, -9.0], [-1e-6, -9.0]]])
    outputs = SSDOutputs(logits, torch.zeros(1, 2, 4), boxes)
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(outputs, [Frame((50, 50))])
    assert detections.scores.tolist() == [0.5]


def test_no_detections_are_empty_tensors_of_the_right_shapes():
    outputs = outputs_of([[10.0, 10.0, 20.0, 20.0]], [[0.1, 0.1]])
    (detections,) = SSDPostprocess(SIGMOID, score_threshold=0.5)(outputs, [Frame((50, 50))])
    assert (detections.boxes.shape, detections.scores.shape, detections.labels.shape) == (
        (0, 4),
        (0,),
        (0,),
    )


def test_batch_gives_the_detections_of_its_images_alone():
    outputs = random_outputs(num_images=3)
    frames = [Frame((100, 80)), Frame((50, 50), (2.0, 2.0)), Frame((300, 90), (0.3, 1.1))]
    postprocess = SSDPostprocess(ClassSlots(3, "sigmoid", False))
    for i, together in enumerate(postprocess(outputs, frames)):
        one = SSDOutputs(outputs.logits[i : i + 1], outputs.deltas[i : i + 1], outputs.anchors)
        (alone,) = postprocess(one, [frames[i]])
        assert torch.equal(together.boxes, alone.boxes)
        # A sigmoid's last place depends on where in a vector register the value lies.
        torch.testing.assert_close(together.scores, alone.scores, rtol=1e-6, atol=0)
        assert torch.equal(together.labels, alone.labels)


def test_softmax_background_suppresses_every_class():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    logits = torch.tensor([[[8.0, 1.0, 2.0]]])
    postprocess = SSDPostprocess(ClassSlots(2, "softmax", background=True), score_threshold=0.01)
    (detections,) = postprocess(SSDOutputs(logits, torch.zeros(1, 1, 4), boxes), [Frame((9, 9))])
    assert len(detections) == 0
