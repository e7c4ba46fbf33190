from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_noise
from PIL import Image

from mbv2det.config import EvalSettings
from mbv2det.data.annotations import Annotations, union
from mbv2det.data.datamodule import DenseData
from mbv2det.data.dataset import AnnotatedImages, collate, read_sample
from mbv2det.data.index_masks import IndexMasks
from mbv2det.data.objects import Objects
from mbv2det.errors import DataError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.model_config import EvalConfig
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import SampleKey, SegmentationMap
from mbv2det.tasks import SegmentationTask
from mbv2det.tasks.task import Prediction

LABELS = LabelMap.of_masks((BACKGROUND, "cat", "dog"))
RED, BLUE = (255, 0, 0), (0, 0, 255)
ORIENTATION = 0x0112  # EXIF's tag


def masks_of(folder, names, size=(30, 40), value_of=None):
    """Returns a list of images and of masks full of 0, 1, ..."""
    for value, name in enumerate(names):
        write_noise(folder / f"{name}.png", 30, 40)
        Image.new("L", size[::-1], value).save(folder / f"{name}_mask.png")
    return Annotations(
        "masks.txt",
        image_ids=np.array([*names]),
        files=np.array([str(folder / f"{name}.png") for name in names]),
        sizes=np.zeros((len(names), 2), np.int64),
        masks=IndexMasks.of(LABELS, [str(folder / f"{name}_mask.png") for name in names]),
    )


def boxes_of(folder, counts):
    """Returns a list of images with the given number of boxes each."""
    for name in counts:
        write_noise(folder / f"{name}.png", 30, 40)
    total = sum(counts.values())
    return Annotations(
        "boxes.txt",
        image_ids=np.array([*counts]),
        files=np.array([str(folder / f"{name}.png") for name in counts]),
        sizes=np.array([(30, 40)] * len(counts)),
        objects=Objects(
            label_map=LabelMap(("cat", "dog"), (1, 2)),
            annotated=np.ones(len(counts), bool),
            starts=np.cumsum([0, *counts.values()]),
            boxes=np.array([[1, 2, 3 + i, 4 + i] for i in range(total)], float).reshape(-1, 4),
            labels=np.arange(total) % 2,
            areas=np.ones(total),
            crowd=np.zeros(total, bool),
            difficult=np.zeros(total, bool),
        ),
    )


@pytest.fixture
def both(tmp_path):
    """Images a and b have boxes (b none), b and c masks of 0 and 1."""
    return union(boxes_of(tmp_path, {"a": 2, "b": 0}), masks_of(tmp_path, ["b", "c"]))


def test_union_has_every_image_once(both, tmp_path):
    assert both.image_ids.tolist() == ["a", "b", "c"]
    assert both.files.tolist() == [str(tmp_path / f"{name}.png") for name in "abc"]
    assert [both.size(index) for index in range(3)] == [(30, 40), (30, 40), None]
    assert both.name == "boxes.txt, masks.txt"


def test_image_of_the_first_list_has_only_boxes(both):
    assert len(both.instances(0, (30, 40))) == 2
    assert both.mask(0) is None


def test_image_of_both_lists_has_both(both):
    assert len(both.instances(1, (30, 40))) == 0
    np.testing.assert_array_equal(both.mask(1), np.zeros((30, 40)))


def test_image_of_the_second_list_has_only_a_mask(both):
    # Objects that nobody annotated are not the same as no objects.
    assert both.instances(2, (30, 40)) is None
    np.testing.assert_array_equal(both.mask(2), np.ones((30, 40)))


def test_masks_keep_their_images_in_lists_of_other_orders(tmp_path):
    boxes = boxes_of(tmp_path, {"c": 1, "a": 2})
    annotations = union(boxes, masks_of(tmp_path, ["a", "b", "c"]))
    assert annotations.image_ids.tolist() == ["c", "a", "b"]
    assert [annotations.mask(index)[0, 0] for index in range(3)] == [2, 0, 1]
    assert [len(annotations.instances(index, (30, 40)) or ()) for index in range(3)] == [1, 2, 0]


def test_union_has_the_faults_of_both_lists(tmp_path):
    boxes, masks = boxes_of(tmp_path, {"a": 1}), masks_of(tmp_path, ["a"])
    for annotations, file in ((boxes, "x"), (masks, "y")):
        annotations.faults.add("odd", file)
    masks.faults.add("dark", "z")
    assert union(boxes, masks).faults.lines() == ["2 odd: x, y", "1 dark: z"]
    assert boxes.faults.lines() == ["1 odd: x"]


def test_summary_distinguishes_images_without_boxes_from_images_not_annotated(both):
    assert both.summary() == (
        "3 images, 2 objects of 2 classes, 1 images without any, 1 without annotated boxes, "
        "2 masks of 3 labels"
    )


def test_choosing_classes_keeps_what_is_annotated(both):
    annotations = both.with_label_map(LabelMap(("dog",), (1,)))
    assert annotations.objects.starts.tolist() == [0, 1, 1, 1]
    assert annotations.objects.annotated.tolist() == [True, True, False]
    assert annotations.instances(2, (30, 40)) is None


def test_sample_has_its_annotation_and_ignores_pixels_without_one(both):
    samples = [read_sample(both, SampleKey(0, index)) for index in range(3)]
    assert [s.instances is None for s in samples] == [False, False, True]
    assert [len(s.instances) for s in samples[:2]] == [2, 0]
    values = [np.unique(s.mask).tolist() for s in samples]
    assert values == [[255], [0], [1]]
    assert {s.mask.shape for s in samples} == {(30, 40)}


def test_sample_of_a_data_set_without_masks_has_none(tmp_path):
    assert read_sample(boxes_of(tmp_path, {"a": 1}), SampleKey(0, 0)).mask is None


def test_sample_of_a_data_set_without_boxes_has_none(tmp_path):
    assert read_sample(masks_of(tmp_path, ["a"]), SampleKey(0, 0)).instances is None


def test_batch_distinguishes_images_without_boxes_from_images_not_annotated(both):
    data = AnnotatedImages(both, Preprocessor(PreprocessSpec((30, 40))))
    batch = collate([data[SampleKey(0, index)] for index in range(3)])
    assert batch.boxes.annotated.tolist() == [True, True, False]
    assert batch.boxes.valid.tolist() == [[True, True], [False, False], [False, False]]
    assert batch.masks[:, 0, 0].tolist() == [255, 0, 1]


def test_evaluation_keeps_the_original_mask_and_training_does_not(both):
    preprocessor = Preprocessor(PreprocessSpec((15, 20)))
    evaluation = AnnotatedImages(both, preprocessor)
    training = AnnotatedImages(both, preprocessor, augment=lambda sample: sample)
    keys = [SampleKey(0, index) for index in range(3)]
    first, *others = collate([evaluation[key] for key in keys]).original_masks
    assert first is None  # an image without a mask, which is not a mask of ignored pixels
    assert [mask.shape for mask in others] == [(30, 40)] * 2
    assert [np.unique(mask).tolist() for mask in others] == [[0], [1]]
    assert collate([training[key] for key in keys]).original_masks == [None] * 3
    assert collate([training[key] for key in keys]).masks.shape == (3, 15, 20)


def test_evaluation_opens_each_mask_file_once(tmp_path, monkeypatch):
    opened = []

    def counting_open(file, *args, **kwargs):
        opened.append(Path(file).name if isinstance(file, str | Path) else None)
        return pil_open(file, *args, **kwargs)

    split = masks_of(tmp_path, ["a", "b", "c"])
    pil_open = Image.open
    monkeypatch.setattr(Image, "open", counting_open)
    preprocessor = Preprocessor(PreprocessSpec((15, 20)))
    data = DenseData(None, split, preprocessor, None, batch_size=2, num_workers=0, seed=0)
    task = SegmentationTask(DeepLabV3Config(), split.masks.label_map, EvalConfig())
    metric = task.metric(split, EvalSettings())
    for batch in data.val_dataloader():
        ones = SegmentationMap(torch.full((30, 40), 1, dtype=torch.uint8))
        task.update(metric, [Prediction(segmentation=ones) for _ in batch.keys], batch)
    # Masks of 0, 1 and 2 against maps of 1: a third of the pixels is right.
    scores = metric.compute()
    assert scores["images"] == 3
    assert scores["per_class"] == {BACKGROUND: 0.0, "cat": 1 / 3, "dog": 0.0}
    masks = sorted(name for name in opened if name is not None and "mask" in name)
    assert masks == ["a_mask.png", "b_mask.png", "c_mask.png"]


def test_mask_of_another_size_is_one_error_naming_both_files_and_sizes(tmp_path):
    annotations = masks_of(tmp_path, ["a"], size=(31, 40))
    with pytest.raises(DataError, match=r"a\.png: .*31x40 .*a_mask\.png, got .*30x40") as caught:
        read_sample(annotations, SampleKey(0, 0))
    assert "\n" not in str(caught.value)


def test_mask_of_another_size_than_annotated_is_an_error(tmp_path):
    annotations = union(boxes_of(tmp_path, {"a": 1}), masks_of(tmp_path, ["a"], size=(40, 30)))
    expected = r"a_mask\.png: expected a mask of 30x40 pixels as .*a\.png has, got 40x30"
    with pytest.raises(DataError, match=expected):
        read_sample(annotations, SampleKey(0, 0))


def turned_photo(folder, mask):
    """Returns a photo of 20x30 stored pixels, red left and blue right, to be rotated clockwise."""
    stored = Image.new("RGB", (30, 20), BLUE)
    stored.paste(RED, (0, 0, 15, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    annotations = masks_of(folder, ["a"])
    stored.save(folder / "a.png", exif=exif)
    Image.fromarray(mask).save(folder / "a_mask.png")
    return annotations


@pytest.mark.parametrize(("shape", "axis"), [((20, 30), 1), ((30, 20), 0)])
def test_rotated_photo_has_the_orientation_of_its_mask(tmp_path, shape, axis):
    # Label 1 on the red half: the left one of the stored pixels, the upper one when upright.
    y, x = np.indices(shape)
    mask = ((x if axis else y) < 15).astype(np.uint8)
    sample = read_sample(turned_photo(tmp_path, mask), SampleKey(0, 0))
    assert sample.frame.original == shape
    np.testing.assert_array_equal(sample.mask, mask)
    np.testing.assert_array_equal((sample.image == RED).all(axis=2), mask == 1)


def test_annotated_size_takes_precedence_over_the_mask(tmp_path):
    # Boxes were made upright, and so was the mask.
    mask = np.zeros((30, 20), np.uint8)
    annotations = replace(turned_photo(tmp_path, mask), sizes=np.array([(30, 20)]))
    assert read_sample(annotations, SampleKey(0, 0)).image.shape == (30, 20, 3)
