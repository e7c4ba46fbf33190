import copy
import datetime
import json
import pickle

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from mbv2det.data.objects import Objects
from mbv2det.labels import LabelMap
from mbv2det.metrics.coco_ap import coco_ap
from mbv2det.metrics.detection_ap import DetectionAP
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.metrics.voc_ap import voc_ap
from mbv2det.structures import Detections

NUM_IMAGES = 21
PER_IMAGE = 6


def split():
    """Returns ground truth of 21 images and the detections of each, with many equal scores."""
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 200, (NUM_IMAGES * PER_IMAGE, 2))
    boxes = np.concatenate([corner, corner + rng.integers(8, 150, corner.shape)], 1).astype(float)
    image = np.repeat(np.arange(NUM_IMAGES), PER_IMAGE)
    labels = rng.integers(0, 3, len(image))
    truth = Objects.group_by_image(
        LabelMap.of_masks(("a", "b", "c", "absent")),
        NUM_IMAGES,
        image,
        boxes=boxes,
        labels=labels,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        crowd=rng.random(len(image)) < 0.1,
        difficult=rng.random(len(image)) < 0.1,
    )
    detections = []
    for index in range(NUM_IMAGES):
        which = np.flatnonzero(image == index)[: rng.integers(0, PER_IMAGE + 1)]
        detections.append(
            Detections(
                boxes=torch.tensor(
                    boxes[which] + rng.integers(-4, 5, (len(which), 4)), dtype=torch.float32
                ),
                scores=torch.tensor(rng.integers(1, 5, len(which)) / 5, dtype=torch.float32),
                labels=torch.tensor(labels[which]),
            )
        )
    return truth, detections


def no_detections():
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def scores_of(truth, detections, batches):
    metric = DetectionAP(truth)
    for batch in batches:
        metric.update([detections[i] for i in batch], batch)
    return metric.compute()


@pytest.fixture(scope="module")
def example():
    return split()


@pytest.fixture(scope="module")
def expected(example):
    return scores_of(*example, [range(NUM_IMAGES)])


def test_detection_ap_equals_the_functions(example, expected):
    truth, detections = example
    boxes = ScoredBoxes(
        image=np.repeat(np.arange(NUM_IMAGES), [len(d) for d in detections]),
        boxes=torch.cat([d.boxes for d in detections]).double().numpy(),
        scores=torch.cat([d.scores for d in detections]).double().numpy(),
        labels=torch.cat([d.labels for d in detections]).numpy(),
    )
    coco, voc = coco_ap(truth, boxes), voc_ap(truth, boxes)
    assert 0 < expected["AP"] < 1
    assert expected["per_class"]["absent"] is None
    assert expected == coco | {"VOC07": voc["VOC07"], "VOC10": voc["VOC10"], "images": NUM_IMAGES}
    assert json.loads(json.dumps(expected)) == expected


def test_neither_order_nor_batches_of_images_matter(example, expected):
    backwards = [[20], list(range(19, 7, -1)), [], list(range(8))]
    assert scores_of(*example, backwards) == expected


def test_repeated_image_counts_once(example, expected):
    assert scores_of(*example, [range(NUM_IMAGES), [3, 3, 0]]) == expected


def test_first_addition_of_a_repeated_image_counts(example, expected):
    truth, detections = example
    metric = DetectionAP(truth)
    metric.update(detections, range(NUM_IMAGES))
    metric.update([no_detections(), detections[5]], [4, 6])
    assert metric.compute() == expected


def test_images_that_were_not_added_are_not_evaluated(example):
    truth, detections = example
    some = [9, 2, 5]
    scores = scores_of(truth, detections, [some])
    of_some = truth.of_images(np.array(some))
    assert scores == scores_of(of_some, detections, [some])
    assert scores["images"] == 3
    assert len(of_some) == 3 * PER_IMAGE < len(truth)


def test_image_without_detections_counts(example):
    truth, _ = example
    scores = scores_of(truth, [no_detections()] * NUM_IMAGES, [range(NUM_IMAGES)])
    assert scores["images"] == NUM_IMAGES
    assert scores["AP"] == scores["VOC07"] == scores["VOC10"] == 0.0


def test_without_images_scores_are_none(example):
    metric = DetectionAP(example[0])
    metric.update([], [])
    scores = metric.compute()
    assert scores.pop("images") == 0
    assert scores.pop("per_class") == dict.fromkeys(["a", "b", "c", "absent"])
    assert set(scores.values()) == {None}


def test_reset_clears_the_state(example, expected):
    truth, detections = example
    metric = DetectionAP(truth)
    metric.update([no_detections()], [0])
    assert metric.compute()["images"] == 1
    metric.reset()
    metric.update(detections, range(NUM_IMAGES))
    assert metric.compute() == expected


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_have_the_state_of_the_original(example, expected, copied):
    truth, detections = example
    metric = DetectionAP(truth)
    metric.update(detections[:10], range(10))
    clone = copied(metric)
    metric.update([no_detections()], [10])
    clone.update(detections[10:], range(10, NUM_IMAGES))
    assert clone.compute() == expected


def test_casting_the_model_does_not_round_the_states(example, expected):
    truth, detections = example
    metric = DetectionAP(truth).to(torch.bfloat16)
    metric.update(detections, range(NUM_IMAGES))
    assert metric.compute() == expected


def test_backend_computes_cocos_numbers(example, expected):
    truth, detections = example
    metric = DetectionAP(truth, backend="pycocotools")
    metric.update(detections, range(NUM_IMAGES))
    scores = metric.compute()
    # 1e-12: the same arithmetic in double precision, up to the order of sums.
    assert scores.pop("per_class") == pytest.approx(expected["per_class"], abs=1e-12)
    others = {name: value for name, value in expected.items() if name != "per_class"}
    assert scores == pytest.approx(others, abs=1e-12)


def test_index_outside_the_split_is_refused(example):
    truth, detections = example
    with pytest.raises(ValueError, match=r"image indices in 0\.\.20, .* but got 21"):
        DetectionAP(truth).update(detections[:1], [21])
    with pytest.raises(ValueError, match="shorter"):
        DetectionAP(truth).update(detections[:1], [0, 1])


def shards_of(rank):
    """Batches of image indices of one of two processes by case, and whether it has detections."""
    shard = list(range(rank, NUM_IMAGES, 2))
    return {
        "alternating": ([shard[:4], shard[4:]], True),
        "padded": ([shard if rank == 0 else [*shard, 0]], True),
        "one idle": ([list(range(NUM_IMAGES))] if rank == 0 else [], True),
        "no detections": ([shard], False),
    }


def evaluate_shards(rank, folder):
    """Runs in each of two processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    truth, detections = split()
    scores = {}
    for case, (batches, any_detection) in shards_of(rank).items():
        predictions = detections if any_detection else [no_detections()] * NUM_IMAGES
        scores[case] = scores_of(truth, predictions, batches)
    (folder / f"{rank}.json").write_text(json.dumps(scores))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    torch.multiprocessing.spawn(evaluate_shards, args=(folder,), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", ["alternating", "padded", "one idle"])
def test_two_processes_equal_one(two_processes, expected, case):
    assert two_processes[0][case] == two_processes[1][case] == expected


def test_two_processes_may_have_no_detections(two_processes, example):
    one = scores_of(example[0], [no_detections()] * NUM_IMAGES, [range(NUM_IMAGES)])
    assert two_processes[0]["no detections"] == two_processes[1]["no detections"] == one
