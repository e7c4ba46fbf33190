import itertools

import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

from mbv2det.augment_config import AugmentConfig
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.data.annotations import Annotations
from mbv2det.data.augment import Augment
from mbv2det.data.datamodule import DenseData
from mbv2det.data.objects import Objects
from mbv2det.data.repeat_factors import draw_in_proportion, repeat_factors
from mbv2det.data.sampler import ShuffledShard
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.preprocess import Preprocessor, PreprocessSpec

FACTORS = st.lists(st.floats(1, 20), min_size=1, max_size=40).map(np.array)


def split_of(labels_of_images, crowd=()):
    """A split whose images have objects of these labels."""
    pairs = [(i, label) for i, labels in enumerate(labels_of_images) for label in labels]
    image = np.array([i for i, _ in pairs], np.int64)
    objects = Objects.group_by_image(
        LabelMap(("a", "b", "c"), (1, 2, 3)), len(labels_of_images), image,
        boxes=np.tile([0.0, 0.0, 9.0, 9.0], (len(pairs), 1)),
        labels=np.array([label for _, label in pairs], np.int64), areas=np.full(len(pairs), 81.0),
        crowd=np.isin(np.arange(len(pairs)), crowd),
    )  # fmt: skip
    count = len(labels_of_images)
    names = np.array([f"{i}.png" for i in range(count)])
    return Annotations("train", names, names, np.full((count, 2), 10), objects)


def test_factors_are_those_of_the_paper():
    # Class 0 is in 8 of 8 images, class 1 in 2, class 2 in 1; the threshold is 1/2: factors of
    # sqrt(4 / 2) and sqrt(4 / 1). An image has the largest of its classes; several objects of a
    # class in one image count once.
    split = split_of([[0], [0, 0, 0], [0, 1, 1], [0, 1, 2], [0], [0], [0], [0]])
    expected = [1, 1, np.sqrt(2), 2, 1, 1, 1, 1]
    np.testing.assert_allclose(repeat_factors(split, 0.5), expected)


def test_images_without_objects_and_ignored_objects_do_not_count():
    split = split_of([[0], [], [1], [0]], crowd=[1])  # the object of class 1
    np.testing.assert_array_equal(repeat_factors(split, 0.5), np.ones(4))


def test_data_without_boxes_is_refused():
    names = np.array(["0.png"])
    masks_only = Annotations("train", names, names, np.full((1, 2), 10))
    with pytest.raises(ConfigError, match=r"data\.repeat_threshold: expected 0"):
        repeat_factors(masks_only, 0.1)


@given(FACTORS, st.integers(0, 5))
def test_every_epoch_has_as_many_images_as_the_split(factors, seed):
    drawn = draw_in_proportion(factors, np.random.default_rng(seed))
    shares = factors / factors.sum() * len(factors)
    counts = np.bincount(drawn, minlength=len(factors))
    assert len(drawn) == len(factors)
    # Systematic sampling: the share, rounded down or up; 1e-9 for sums of floats.
    assert (counts >= np.floor(shares - 1e-9)).all()
    assert (counts <= np.ceil(shares + 1e-9)).all()


def test_images_are_drawn_in_proportion():
    factors = np.array([1.0, 1.0, 1.0, 1.0, 4.0])
    epochs = [draw_in_proportion(factors, np.random.default_rng(s)) for s in range(400)]
    means = np.bincount(np.concatenate(epochs), minlength=5) / 400
    # Shares of 5/8 and 5/2; four standard errors of at most 0.5 / sqrt(400).
    np.testing.assert_allclose(means, [0.625, 0.625, 0.625, 0.625, 2.5], atol=0.1)


@given(FACTORS, st.integers(1, 4), st.integers(0, 30))
def test_a_resumed_share_continues_where_it_stopped(factors, world, taken):
    def share(rank, skip=0):
        sampler = ShuffledShard(len(factors), 3, rank, world, factors)
        sampler.start_at(2, skip)
        return list(sampler)

    for rank in range(world):
        assert share(rank, taken) == share(rank)[taken:]


@given(FACTORS)
def test_repeats_of_an_image_are_numbered(factors):
    keys = list(ShuffledShard(len(factors), 0, factors=factors))
    assert len(set(keys)) == len(keys)
    for index, group in itertools.groupby(sorted(keys, key=lambda k: k.index), lambda k: k.index):
        assert [key.repeat for key in keys if key.index == index] == list(range(len(list(group))))


def test_equal_factors_show_every_image_once():
    keys = list(ShuffledShard(30, 0, factors=np.ones(30)))
    assert sorted(key.index for key in keys) == list(range(30))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(tmp_path_factory.mktemp("run"), num_train=8, num_val=2)


def test_repeats_are_augmented_differently(config):
    parts = RunParts.read(SettingsParser("").parse([str(config)]))
    preprocessor = Preprocessor(PreprocessSpec((96, 128)))
    data = DenseData(
        parts.training, parts.validation, preprocessor, Augment(AugmentConfig(), preprocessor, 0),
        batch_size=8, num_workers=0, seed=0, factors=np.array([50.0, *np.ones(7)]),
    )  # fmt: skip
    batch = next(iter(data.train_dataloader()))
    rows = [row for row, key in enumerate(batch.keys) if key.index == 0]
    assert len(rows) > 3
    assert len({batch.images[row].numpy().tobytes() for row in rows}) == len(rows)


def test_the_setting_reaches_the_sampler_and_is_said(config, capsys):
    settings = SettingsParser("").parse([str(config), "--data.repeat_threshold=1"])
    data = RunParts.read(settings).data()
    assert data.train_dataloader().sampler.factors.max() > 1
    assert "images have rare classes and are shown up to" in capsys.readouterr().err
    assert RunParts.read(SettingsParser("").parse([str(config)])).data().factors is None
