from dataclasses import replace

import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

from mbv2det.augment_config import AugmentConfig
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.data.copy_paste import LabelPieces, OutlinePieces, Piece, Placement, copy_paste
from mbv2det.data.mixing import Mixing
from mbv2det.data.mosaic import mosaic
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.labels import LabelMap
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import IGNORE_INDEX, Instances, Sample, SampleKey

FILL = (1, 2, 3)
SMALL = Preprocessor(PreprocessSpec((96, 128)))


def objects(*rows, ignore=()):
    """Objects of (x_min, y_min, x_max, y_max, label)."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    ignored = np.isin(np.arange(len(values)), ignore)
    return Instances(values[:, :4], values[:, 4].astype(np.int64), ignored)


def plain(value, size, instances, label=None):
    mask = None if label is None else np.full(size, label, np.uint8)
    image = np.full((*size, 3), value, np.uint8)
    return Sample(SampleKey(0, 0), image, Frame(size), instances, mask)


def test_a_mosaic_of_a_hand_worked_example():
    # The quadrants meet at row 6, column 7 of 10 x 12 pixels.
    top_left = plain(10, (8, 9), objects((3, 4, 9, 8, 1), (0, 0, 3, 3, 2)), label=1)
    top_right = plain(20, (4, 3), objects((0, 0, 3, 4, 3)), label=2)
    bottom_left = plain(30, (4, 7), objects(), label=3)
    bottom_right = plain(40, (9, 9), objects((3, 1, 9, 5, 4), (4, 0, 9, 9, 5), ignore=[1]), label=4)
    done = mosaic([top_left, top_right, bottom_left, bottom_right], (10, 12), (6, 7), FILL)
    expected = np.full((10, 12), 1)
    expected[:6, :7] = 10  # 2 rows and 2 columns of the 8 x 9 are cut off at the top and left
    expected[2:6, 7:10] = 20  # 4 x 3 pixels, whose bottom left corner is in the centre
    expected[6:, :7] = 30
    expected[6:, 7:] = 40
    np.testing.assert_array_equal(done.image[..., 0], expected)
    table = np.full(41, IGNORE_INDEX)
    table[[10, 20, 30, 40]] = [1, 2, 3, 4]
    np.testing.assert_array_equal(done.mask, table[expected])
    # The second object loses its centre. The first two are moved by (-2, -2) and (7, 2). The window
    # onto the last image has 4 rows and 5 columns: its first object has the centre (6, 3) and is
    # dropped; of the ignored one everything in the window is kept.
    assert done.instances.boxes.tolist() == [[1, 2, 7, 6], [7, 2, 10, 6], [11, 6, 12, 10]]
    assert done.instances.labels.tolist() == [1, 3, 5]
    assert done.instances.ignore.tolist() == [False, False, True]


def test_a_mosaic_with_an_image_whose_objects_are_unknown_has_unknown_objects():
    known, unknown = plain(0, (4, 4), objects((0, 0, 4, 4, 0))), plain(0, (4, 4), None)
    assert mosaic([known, known, unknown, known], (8, 8), (4, 4), FILL).instances is None
    assert len(mosaic([known] * 4, (8, 8), (4, 4), FILL).instances) == 4


class FixedPieces:
    """Pieces that a test chooses."""

    def __init__(self, pieces, regions):
        self.pieces, self.covered = pieces, regions

    def draw(self, sample, generator):
        return self.pieces

    def regions(self, sample):
        return self.covered


def region_of(size, rows, columns):
    region = np.zeros(size, bool)
    region[rows, columns] = True
    return region


def pasted_at(monkeypatch, size, corner, is_flipped, canvas):
    place = Placement(size, corner, is_flipped, canvas)
    monkeypatch.setattr(Placement, "draw", lambda *_: place)


def test_a_pasted_object_of_a_hand_worked_example(monkeypatch):
    pasted_at(monkeypatch, (4, 6), (3, 2), True, (8, 10))
    region = region_of((4, 6), slice(1, 3), slice(0, 2))
    source = plain(200, (4, 6), objects((0, 1, 2, 3, 7)), label=9)
    # Mirrored, it has columns 4 and 5 of the copied image: 6 and 7 of the target, rows 4 and 5.
    target = plain(
        50, (8, 10), objects((5, 4, 8, 8, 1), (6, 4, 8, 6, 2), (0, 0, 5, 5, 3), (6, 0, 8, 6, 4))
    )
    target = replace(target, mask=np.zeros((8, 10), np.uint8))
    covered = [None, None, None, region_of((8, 10), slice(0, 5), slice(6, 8))]
    pieces = FixedPieces([Piece(region, 7)], covered)
    done = copy_paste(target, source, pieces, np.random.default_rng(0))
    expected = np.zeros((8, 10), bool)
    expected[4:6, 6:8] = True
    np.testing.assert_array_equal(done.image[..., 0], np.where(expected, 200, 50))
    np.testing.assert_array_equal(done.mask, np.where(expected, 9, 0))
    # The second is wholly covered; the fourth keeps rows 0 to 3 of the pixels in its outline.
    assert done.instances.boxes.tolist() == [
        [5, 4, 8, 8], [0, 0, 5, 5], [6, 0, 8, 4], [6, 4, 8, 6],
    ]  # fmt: skip
    assert done.instances.labels.tolist() == [1, 3, 4, 7]


def test_what_lies_beyond_the_image_is_cut_off(monkeypatch):
    pasted_at(monkeypatch, (4, 4), (-3, -1), False, (3, 3))
    source = plain(200, (4, 4), objects())
    pieces = FixedPieces([Piece(np.ones((4, 4), bool), 7), Piece(np.eye(4, dtype=bool), 1)], [])
    done = copy_paste(plain(50, (3, 3), objects()), source, pieces, np.random.default_rng(0))
    assert done.image[..., 0].tolist() == [[200] * 3, [50] * 3, [50] * 3]
    assert done.instances.boxes.tolist() == [[0, 0, 3, 1], [2, 0, 3, 1]]


def test_labels_of_masks_without_boxes_are_pasted_but_neither_background_nor_ignored():
    pieces = LabelPieces(LabelMap.of_masks(["background", "car", "cat"]))
    mask = np.array([[0, 1], [2, IGNORE_INDEX]], np.uint8)
    source = replace(plain(200, (2, 2), None), mask=mask)
    drawn = {
        tuple(sorted(int(mask[piece.region][0]) for piece in found))
        for seed in range(30)
        for found in [pieces.draw(source, np.random.default_rng(seed))]
    }
    assert drawn == {(1,), (2,), (1, 2)}
    empty = replace(source, mask=np.zeros((2, 2), np.uint8))
    assert copy_paste(source, empty, pieces, np.random.default_rng(0)) is source


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(tmp_path_factory.mktemp("mix"), num_train=12, num_val=2)


def parts_of(config, *arguments):
    return RunParts.read(SettingsParser("").parse([str(config), *arguments]))


BOTH = ("--augment.mosaic=0.5", "--augment.copy_paste=0.7")


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    heads = f"{runs.DETECTION}, {runs.SEGMENTATION}"
    folder = tmp_path_factory.mktemp("joint")
    return runs.write_config(folder, num_train=12, num_val=2, heads=heads, stride=16)


def read_all(parts):
    data = parts.data().train_dataloader().dataset
    return lambda key: replace(data._read(key), original_mask=None)


@given(st.integers(0, 11), st.integers(0, 50))
def test_mixed_boxes_lie_inside_and_mask_pixels_agree_with_the_image(joint, index, epoch):
    parts = cached(joint)
    read, pieces = read_all(parts), OutlinePieces(parts.training.masks, None)
    spec = AugmentConfig(mosaic=0.5, copy_paste=1.0)
    mixing = Mixing(spec, SMALL, 0, parts.training)
    sample = mixing(read(SampleKey(epoch, index)), read)
    height, width = sample.image.shape[:2]
    assert sample.mask.shape == (height, width)
    boxes = sample.instances.boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert set(np.unique(sample.mask)) <= {*range(len(pieces.outlines.label_map)), IGNORE_INDEX}


UNKNOWN = 99
_PARTS = {}


def cached(config):
    if config not in _PARTS:
        _PARTS[config] = parts_of(config)
    return _PARTS[config]


@given(st.integers(0, 11), st.integers(0, 11), st.integers(0, 200))
def test_pasted_pixels_have_the_labels_of_the_source_and_a_box_around_them(joint, first, other, n):
    parts = cached(joint)
    read = read_all(parts)
    target, source = read(SampleKey(0, first)), read(SampleKey(0, other))
    old = replace(target.instances, labels=np.full(len(target.instances), UNKNOWN))
    black = replace(target, image=np.zeros_like(target.image), instances=old)
    white = replace(source, image=np.full_like(source.image, 255))
    pieces = OutlinePieces(parts.training.masks, parts.training.objects.label_map)
    done = copy_paste(black, white, pieces, np.random.default_rng(n))
    pasted = done.image[..., 0] == 255
    np.testing.assert_array_equal(done.mask[~pasted], target.mask[~pasted])
    names = parts.training.masks.label_map.names
    new = done.instances[done.instances.labels != UNKNOWN]
    covered = np.zeros_like(pasted)
    for box, label in zip(new.boxes.astype(int), new.labels, strict=True):
        inside = done.mask[box[1] : box[3], box[0] : box[2]]
        covered[box[1] : box[3], box[0] : box[2]] = True
        name = parts.training.objects.label_map.names[label]
        assert np.isin(inside, [names.index(name), IGNORE_INDEX]).any()
    assert covered[pasted].all()
    labels = set(np.unique(source.mask)) | {IGNORE_INDEX}
    assert set(np.unique(done.mask[pasted])) <= labels


def batches(config, workers, *arguments):
    parts = parts_of(config, f"--data.num_workers={workers}", *arguments)
    return list(parts.data().train_dataloader())


def test_batches_are_the_same_with_any_number_of_workers(joint):
    for first, second in zip(batches(joint, 0, *BOTH), batches(joint, 2, *BOTH), strict=True):
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.masks, second.masks)
        np.testing.assert_array_equal(first.boxes.boxes, second.boxes.boxes)


def test_mixing_that_is_off_changes_nothing_and_each_kind_changes_batches(joint):
    plain_batches = batches(joint, 0)
    assert parts_of(joint).data().mix is None
    for setting in BOTH:
        mixed = batches(joint, 0, setting)
        pairs = zip(plain_batches, mixed, strict=True)
        rows = [
            (a == b).all().item()
            for one, two in pairs
            for a, b in zip(one.images, two.images, strict=True)
        ]
        assert 0 < sum(rows) < len(rows)


def test_mosaics_end_with_their_epochs(config):
    parts = cached(config)
    read = read_all(parts)
    own = read(SampleKey(0, 0)).image.shape[:2]

    def sizes(epochs):
        spec = AugmentConfig(mosaic=1.0, mosaic_share=0.5)
        mixing = Mixing(spec, SMALL, 0, parts.training, epochs)
        return [mixing(read(SampleKey(e, 0)), read).image.shape[:2] for e in range(4)]

    assert sizes(4) == [(192, 256), (192, 256), own, own]
    assert sizes(None) == [(192, 256)] * 4


@pytest.mark.parametrize(
    ("epochs", "mixed"), [("4", [True, True, True, False]), ("-1", [True] * 4)]
)
def test_mosaics_end_with_the_epochs_of_the_run(config, epochs, mixed):
    parts = parts_of(config, "--augment.mosaic=1", f"--trainer.max_epochs={epochs}")
    read, mixing = read_all(parts), parts.data().mix
    own = read(SampleKey(0, 0)).image.shape[:2]
    sizes = [mixing(read(SampleKey(e, 0)), read).image.shape[:2] for e in range(4)]
    assert [size != own for size in sizes] == mixed


def test_detection_alone_pastes_outlines_and_has_no_masks(config):
    parts = parts_of(config, "--augment.copy_paste=1")
    assert parts.training.masks is None
    assert parts.validation.outlines is None
    batch = next(iter(parts.data().train_dataloader()))
    assert batch.masks is None
    read, mix = read_all(parts), parts.data().mix
    counts = [
        len(mix(sample, read).instances) - len(sample.instances)
        for sample in (read(SampleKey(0, index)) for index in range(6))
    ]
    assert max(counts) > 0


def test_boxes_without_outlines_are_refused(config):
    parts = cached(config)
    with pytest.raises(ConfigError, match=r"augment\.copy_paste: expected objects with outlines"):
        Mixing(
            AugmentConfig(copy_paste=0.5),
            Preprocessor(PreprocessSpec((96, 128))),
            0,
            parts.training,
        )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mosaic": 1.5}, "augment.mosaic: expected from 0 to 1, got 1.5"),
        ({"copy_paste": -1}, "augment.copy_paste: expected from 0 to 1, got -1"),
        ({"mosaic_share": -1}, "augment.mosaic_share: expected from 0 to 1, got -1"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**setting)
