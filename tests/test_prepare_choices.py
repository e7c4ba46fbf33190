"""What `prepare_data` chooses: groups, splits, and settings from boxes and counts."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mbv2det.build import build_model
from mbv2det.cli.config_files import shipped_configs
from mbv2det.cli.settings import SettingsParser
from mbv2det.detection.anchors import AnchorSpec
from mbv2det.labels import LabelMap
from mbv2det.prepare.choices import (
    choose_batch_size,
    choose_epochs,
    choose_scales,
    choose_side,
    cluster_sides,
    describe_classes,
    grids_of,
)
from mbv2det.prepare.config_text import ConfigText
from mbv2det.prepare.near_duplicates import groups_of
from mbv2det.prepare.recipe import BASES
from mbv2det.prepare.split_words import split_of, split_of_path
from mbv2det.prepare.splitting import choose_validation
from mbv2det.preprocess import PreprocessSpec


def scene(seed, size=(96, 128)):
    """A smooth picture, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def test_near_duplicates_are_one_group(tmp_path):
    scene(1).save(tmp_path / "a.png")
    scene(1).save(tmp_path / "compressed.jpg", quality=60)
    scene(1).resize((64, 48)).save(tmp_path / "smaller.png")
    Image.eval(scene(1), lambda value: int(value * 0.8)).save(tmp_path / "darker.png")
    scene(2).save(tmp_path / "other.png")
    (tmp_path / "damaged.png").write_text("")
    Image.new("RGB", (40, 30)).save(tmp_path / "black.png")
    names = ["a.png", "compressed.jpg", "smaller.png", "darker.png", "other.png", "damaged.png"]
    names += ["black.png"]
    groups = groups_of([tmp_path / name for name in names], [n.split(".")[0] for n in names])
    assert len(set(groups[:4])) == 1
    assert len(set(groups[3:])) == 4


def groups_by_name(tmp_path, names):
    return groups_of([tmp_path / "none.png"] * len(names), names).tolist()


def test_images_that_roboflow_made_from_one_are_one_group(tmp_path):
    names = ["train/cat_jpg.rf.0a1b2c", "train/cat_jpg.rf.ffff00", "train/dog_jpg.rf.0a1b2c", "cat"]
    first, second, third, fourth = groups_by_name(tmp_path, names)
    assert first == second
    assert len({first, third, fourth}) == 3


def test_frames_of_several_videos_are_groups(tmp_path):
    names = [f"v{video}_frame{index:04d}" for video in range(5) for index in range(3)]
    groups = groups_by_name(tmp_path, names)
    assert groups == [groups[3 * (index // 3)] for index in range(15)]
    assert len(set(groups)) == 5
    # The frames of one video cannot stay together: there would be nothing to validate on.
    assert len(set(groups_by_name(tmp_path, names[:3]))) == 3
    assert len(set(groups_by_name(tmp_path, ["BloodImage_00001", "BloodImage_00002"]))) == 2


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_both_splits(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, 100)
    chosen = choose_validation(groups, np.ones((100, 1), bool), seed)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert 14 <= chosen.sum() <= 20
    np.testing.assert_array_equal(chosen, choose_validation(groups, np.ones((100, 1), bool), seed))


@pytest.mark.parametrize("seed", range(20))
def test_every_class_stays_in_the_training_split(seed):
    classes = np.zeros((10, 2), bool)
    classes[:, 0] = True
    classes[[2, 7], 1] = True  # a rare class
    chosen = choose_validation(np.arange(10), classes, seed)
    assert chosen.sum() == 2
    assert classes[~chosen].any(axis=0).all()


def test_a_group_larger_than_the_split_leaves_the_smallest():
    groups = np.array([0] * 6 + [1] * 4)
    chosen = choose_validation(groups, np.zeros((10, 0), bool), 0)
    np.testing.assert_array_equal(chosen, groups == 1)


def boxes_of(sides, height=640, width=640):
    """Squares around the middle of images."""
    half = np.array(sides, np.float64)[:, None] / 2
    boxes = np.concatenate([320 - half, 320 - half, 320 + half, 320 + half], axis=1)
    return boxes, np.tile([float(height), float(width)], (len(boxes), 1))


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (32.0, 320),  # 16 pixels at 320
        (31.0, 416),  # 15.5 at 320, 20.2 at 416
        (20.0, 512),  # 13 at 416, 16 at 512
        (5.0, 512),  # never large enough: the largest
    ],
)
def test_the_input_is_as_large_as_the_objects_need(side, expected):
    choice = choose_side(*boxes_of([side] * 10), longest=640, masks=False)
    assert choice.value == expected


def test_the_input_is_not_larger_than_the_images():
    boxes, sizes = boxes_of([5.0] * 10)
    assert choose_side(boxes, sizes, longest=400, masks=False).value == 416
    assert choose_side(boxes[:0], sizes[:0], longest=300, masks=True).value == 321
    assert choose_side(boxes[:0], sizes[:0], longest=4000, masks=True).value == 513


def test_clusters_of_sides():
    sides = np.repeat([0.1, 0.2, 0.4], 12)
    np.testing.assert_allclose(cluster_sides(sides), [0.1, 0.2, 0.4])
    np.testing.assert_allclose(cluster_sides(np.array([0.3, 0.0])), [0.3])


def squares_at_anchors(side):
    """Squares centred at cells of the finest grid of a 320 pixel input."""
    centres = np.stack(np.meshgrid(np.arange(24, 300, 64), np.arange(24, 300, 64)), -1)
    centres = centres.reshape(-1, 2).astype(np.float64)
    return np.concatenate([centres - side / 2, centres + side / 2], axis=1)


def test_anchors_stay_where_the_defaults_fit():
    # The smallest default anchor is a square of 0.1 * 320 = 32 pixels.
    choice = choose_scales(squares_at_anchors(32), (320, 320))
    assert choice.value is None
    assert "100.0% of 25 objects" in choice.reason


def test_anchors_of_small_objects_become_small():
    # A square of 16 pixels overlaps one of 32 by 0.25 only.
    choice = choose_scales(squares_at_anchors(16), (320, 320))
    assert choice.value is not None
    low, high = choice.value
    # Half of the smallest scale has to be a square of 16 / 0.5 ** 0.5 pixels at most.
    assert 16 / 320 <= low <= 2 * 16 / 320 / 0.5**0.5
    assert low < high <= 0.95
    assert choice.reason.startswith("0.0% of 25 objects")
    assert "100.0% with k-means" in choice.reason


def test_there_are_no_anchors_to_choose_without_boxes():
    assert choose_scales(np.zeros((0, 4)), (320, 320)).value is None


@pytest.mark.parametrize("size", [(320, 320), (300, 417), (513, 513)])
def test_the_grids_are_those_of_the_network(size):
    settings = SettingsParser("").parse(["ssdlite_voc"]).config
    model = build_model(
        settings.model(), PreprocessSpec(size), {"detection": LabelMap(("a",), (1,))}
    ).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, *size, dtype=torch.uint8))["detection"]
    per_cell = AnchorSpec().per_cell(6)
    cells = sum(h * w * n for (h, w), n in zip(grids_of(size), per_cell, strict=True))
    assert len(outputs.anchors) == cells


def test_few_images_make_small_batches_and_more_epochs():
    assert choose_batch_size(205, 16).value == 16
    assert choose_batch_size(24, 16).value == 4
    assert choose_batch_size(2, 16).value == 2
    assert choose_epochs(205, 16, 30).value == 84  # 12 steps an epoch, 1,008 in all
    assert choose_epochs(100_000, 16, 30).value == 30
    assert choose_epochs(8, 2, 30).value == 200


def test_rare_and_unmeasured_classes_are_named():
    line, warnings = describe_classes({"a": 500, "b": 3, "c": 40}, {"a": 9, "b": 1}, "objects")
    assert line == "3 classes, objects in train: a 500, c 40, b 3"
    assert warnings == [
        "1 rare classes, with fewer than 20 objects to learn from: b 3",
        "1 classes that validation cannot measure: c 40",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train2017", "train"),
        ("instances_val2017.json", "val"),
        ("valid", "val"),
        ("Testing Images", "test"),
        ("trainval", "trainval"),
        ("strains", None),
        ("train_and_test", None),
    ],
)
def test_words_for_splits(name, expected):
    assert split_of(name) == expected


def test_the_innermost_word_counts():
    assert split_of_path("train/images/val/labels") == "val"
    assert split_of_path("images") is None


@pytest.mark.parametrize("base", BASES.values())
def test_settings_of_a_shipped_configuration_are_replaced_in_place(base):
    text = ConfigText(shipped_configs()[base].read_text())
    before = yaml.safe_load(str(text))
    text.replace_header(["Title", "", "  text " + "word " * 40])
    text.set("data.classes", ("yes", "1", "red: cup", "Straße"), "names")
    text.set("optim.lr", 0.5, "a long reason " * 10)
    text.set("trainer.max_steps", 3)
    text.set("backbone.norm_eps", 0.1, "new")
    after = yaml.safe_load(str(text))
    before["data"]["classes"] = ["yes", "1", "red: cup", "Straße"]
    before["optim"]["lr"], before["trainer"]["max_steps"] = 0.5, 3
    before["backbone"]["norm_eps"] = 0.1
    assert after == before
    assert all(len(line) <= 100 for line in str(text).splitlines())
    assert str(text).startswith("# Title\n#\n#   text word")
