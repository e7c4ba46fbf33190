from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from mbv2det.augment_config import AugmentConfig
from mbv2det.data.augment import Augment
from mbv2det.data.coco import read_coco
from mbv2det.data.datamodule import DenseData
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.errors import ConfigError, DataError
from mbv2det.geometry import Frame
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import Batch, Instances, Sample, SampleKey

SIZE = (64, 96)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory, make_coco):
    return read_coco(*make_coco(tmp_path_factory.mktemp("coco")))


def data_of(annotations, batch_size=4, num_workers=0, seed=0):
    preprocessor = Preprocessor(PreprocessSpec(SIZE))
    return DenseData(
        annotations,
        annotations,
        preprocessor,
        Augment(AugmentConfig(), preprocessor, seed),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
    )


def first_batch(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return next(iter(loader))


def sample(count, index=0, counted=True, faults=(), masked=False):
    """Returns a grey image, with `count` boxes of labels 0, 1, ... or None, and its mask."""
    image = np.full((4, 6, 3), index, np.uint8)
    key, mask = SampleKey(0, index, counted), image[..., 0] if masked else None
    if count is None:
        return Sample(key, image, Frame((4, 6)), None, mask, faults, mask)
    boxes = np.tile(np.array([[1, 2, 3, 4]], np.float32), (count, 1))
    instances = Instances(boxes, np.arange(count), np.arange(count) % 2 == 1)
    return Sample(key, image, Frame((4, 6)), instances, mask, faults, mask)


# More workers than cores is what is tested; forking with threads is the library's business.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [1, 4])
def test_workers_do_not_change_the_batch(annotations, num_workers):
    alone = first_batch(data_of(annotations))
    batch = first_batch(data_of(annotations, num_workers=num_workers))
    assert batch.keys == alone.keys
    assert torch.equal(batch.images, alone.images)
    assert torch.equal(batch.boxes.boxes, alone.boxes.boxes)
    assert torch.equal(batch.boxes.labels, alone.boxes.labels)
    assert torch.equal(batch.boxes.ignore, alone.boxes.ignore)


def test_another_epoch_gives_another_order_and_other_pixels(annotations):
    batches = [first_batch(data_of(annotations), epoch) for epoch in (0, 1)]
    orders = [[key.index for key in batch.keys] for batch in batches]
    assert orders[0] != orders[1]
    images = [dict(zip(o, b.images, strict=True)) for o, b in zip(orders, batches, strict=True)]
    common = images[0].keys() & images[1].keys()
    assert common
    assert all(not torch.equal(images[0][index], images[1][index]) for index in common)


def test_another_seed_gives_another_batch(annotations):
    first, second = (first_batch(data_of(annotations, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first.images, second.images)


def test_batch_has_uint8_images_of_the_input_size_channels_first(annotations):
    batch = first_batch(data_of(annotations))
    assert isinstance(batch, Batch)
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (4, 3, *SIZE)
    assert len(batch) == len(batch.frames) == 4


def test_validation_has_every_whole_image_once_in_order(annotations):
    batches = list(data_of(annotations, batch_size=2).val_dataloader())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [key.index for batch in batches for key in batch.keys] == [0, 1, 2, 3, 4]
    frames = [frame for batch in batches for frame in batch.frames]
    assert [frame.original for frame in frames] == [
        (40, 30),
        (32, 48),
        (24, 24),
        (30, 40),
        (50, 36),
    ]


def test_validation_boxes_lie_in_the_network_input(annotations):
    # Image 3 is 30x40 at 64x96: y * 64 / 30, x * 96 / 40. Its first box is (4, 5, 24, 15).
    batch = list(data_of(annotations, batch_size=5).val_dataloader())[0]  # noqa: RUF015
    expected = torch.tensor([4 * 2.4, 5 * 64 / 30, 24 * 2.4, 15 * 64 / 30])
    # One rounding to float32 of numbers below 64.
    torch.testing.assert_close(batch.boxes.boxes[3, 0], expected, rtol=0, atol=1e-5)


def test_incomplete_training_batches_are_dropped(annotations):
    assert [len(batch) for batch in data_of(annotations, batch_size=2).train_dataloader()] == [2, 2]


def test_batch_larger_than_the_training_split_is_an_error(annotations):
    with pytest.raises(ConfigError, match=r"data\.batch_size: expected at most the 5 .*got 6"):
        data_of(annotations, batch_size=6).train_dataloader()


def test_batch_may_be_as_large_as_the_training_split(annotations):
    assert len(data_of(annotations, batch_size=5).train_dataloader()) == 1


def test_truncated_file_is_named_in_the_batch(tmp_path, make_coco):
    annotations = read_coco(*make_coco(tmp_path))
    path = annotations.path(2)
    path.write_bytes(path.read_bytes()[:-200])
    batch = next(iter(data_of(annotations, batch_size=5).val_dataloader()))
    assert list(batch.faults) == [2]
    assert batch.faults[2][0].startswith("truncated")


def test_image_of_another_size_than_annotated_is_an_error(annotations):
    sizes = annotations.sizes + 1
    wrong = AnnotatedImages(replace(annotations, sizes=sizes), Preprocessor(PreprocessSpec(SIZE)))
    with pytest.raises(DataError, match=r"a\.png: .*of 41x31 pixels, .*got one of 40x30"):
        wrong[SampleKey(0, 0)]


def test_collate_pads_to_the_most_objects():
    targets = collate([sample(1), sample(3, index=1)]).boxes
    assert targets.labels.tolist() == [[0, -1, -1], [0, 1, 2]]
    assert targets.ignore.tolist() == [[False, False, False], [False, True, False]]
    assert targets.valid.tolist() == [[True, False, False], [True, True, True]]
    assert targets.boxes[0, 1:].abs().sum() == 0
    assert targets.boxes[1, 2].tolist() == [1, 2, 3, 4]


def test_collate_distinguishes_images_without_annotation_from_those_without_objects():
    targets = collate([sample(0), sample(None, index=1), sample(2, index=2)]).boxes
    assert targets.annotated.tolist() == [True, False, True]
    assert targets.labels.tolist() == [[-1, -1], [-1, -1], [0, 1]]


def test_collate_takes_a_batch_of_images_without_annotation():
    targets = collate([sample(None)]).boxes
    assert targets.boxes.shape == (1, 1, 4)
    assert not targets.valid.any()
    assert not targets.annotated.any()


def test_collate_stacks_masks():
    masks = collate([sample(1, 3, masked=True), sample(None, 7, masked=True)]).masks
    assert masks.dtype == torch.uint8
    assert masks.shape == (2, 4, 6)
    assert masks[:, 3, 5].tolist() == [3, 7]


def test_batch_of_a_data_set_without_masks_has_none():
    assert collate([sample(1)]).masks is None


@pytest.mark.parametrize("batch_size", [1, 2])
def test_collate_pads_to_one_object_without_objects(batch_size):
    batch = collate([sample(0)] * batch_size)
    assert batch.boxes.boxes.shape == (batch_size, 1, 4)
    assert not batch.boxes.valid.any()


def test_counted_leaves_the_repeats_out():
    batch = collate([sample(1, 0), sample(2, 1, counted=False), sample(3, 2)]).counted()
    assert [key.index for key in batch.keys] == [0, 2]
    assert batch.images[:, 0, 0, 0].tolist() == [0, 2]
    assert batch.boxes.valid.sum(dim=1).tolist() == [1, 3]
    assert len(batch.frames) == 2


def test_counted_keeps_masks_and_what_is_annotated():
    samples = [
        sample(1, 3, masked=True),
        sample(1, 4, counted=False, masked=True),
        sample(None, 5, masked=True),
    ]
    batch = collate(samples).counted()
    assert batch.masks[:, 0, 0].tolist() == [3, 5]
    assert [mask[0, 0] for mask in batch.original_masks] == [3, 5]
    assert batch.boxes.annotated.tolist() == [True, False]
    assert collate([sample(1), sample(1, counted=False)]).counted().masks is None


def test_counted_batch_may_be_empty():
    batch = collate([sample(1, counted=False, masked=True)]).counted()
    assert (len(batch), len(batch.images), len(batch.boxes.labels)) == (0, 0, 0)
    assert batch.masks.shape == (0, 4, 6)


def test_counted_returns_a_batch_without_repeats_unchanged():
    batch = collate([sample(1)])
    assert batch.counted() is batch


def tensors_of(batch):
    """Returns every tensor of a batch by the name of its field."""
    tensors = {}
    for holder in (batch, batch.boxes):
        for field in fields(holder):
            value = getattr(holder, field.name)
            if isinstance(value, torch.Tensor):
                tensors[field.name] = value
    return tensors


NAMES = {"images", "masks", "boxes", "labels", "ignore", "annotated"}


def test_batch_moves_every_tensor():
    # The meta device needs no hardware.
    batch = collate([sample(1, faults=("odd",), masked=True)]).to("meta", non_blocking=True)
    moved = tensors_of(batch)
    assert set(moved) == NAMES
    assert {tensor.device.type for tensor in moved.values()} == {"meta"}
    assert batch.faults == {0: ("odd",)}


def test_original_masks_stay_on_the_host():
    unmasked = replace(sample(1, 4, masked=True), original_mask=None)
    batch = collate([sample(1, 3, masked=True), unmasked])
    original, missing = batch.to("meta").original_masks
    assert isinstance(original, np.ndarray)
    assert original is batch.original_masks[0]
    assert missing is None


def test_batch_without_masks_can_be_moved():
    assert collate([sample(1)]).to("meta").masks is None


def test_data_loader_pins_every_tensor(monkeypatch):
    # Pinning itself needs CUDA; what is tested is that the loader's walk reaches them all.
    pinned = []

    def pin(tensor):
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batch = collate([sample(1, masked=True)])
    assert isinstance(pin_memory(batch), Batch)
    expected = tensors_of(batch)
    assert set(expected) == NAMES
    assert {id(tensor) for tensor in pinned} == {id(tensor) for tensor in expected.values()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA to pin memory")
def test_batch_is_pinned():
    batch = collate([sample(1, masked=True)]).pin_memory()
    assert all(tensor.is_pinned() for tensor in tensors_of(batch).values())
