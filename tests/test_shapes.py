import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mbv2det.data import shapes
from mbv2det.data.scenes import CLASSES, MIN_CONTRAST, ShapesSpec, render_scene
from mbv2det.data.shape_outlines import run_lengths
from mbv2det.data.shapes import ensure_shapes, make_shapes
from mbv2det.errors import ConfigError

SMALL = ShapesSpec(num_train=4, num_val=2, size=(120, 160))


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(ShapesSpec(), "train", index) for index in range(60)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, SMALL, show_progress=False)
    return root


def read_files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def box_sides(mask):
    """Returns height and width of the box around a mask, relative to the image."""
    rows, columns = np.nonzero(mask)
    extent = (rows.max() + 1 - rows.min(), columns.max() + 1 - columns.min())
    return np.array(extent) / mask.shape


def hidden_shares(scenes):
    visible = np.concatenate([scene.visible.sum(axis=(1, 2)) for scene in scenes])
    return 1 - visible / np.concatenate([scene.full.sum(axis=(1, 2)) for scene in scenes])


def test_same_spec_gives_same_files(root, tmp_path):
    make_shapes(tmp_path / "again", SMALL, show_progress=False)
    assert read_files(tmp_path / "again") == read_files(root)


def test_image_depends_on_seed_split_and_index_but_not_on_counts():
    first = render_scene(SMALL, "train", 1).image
    more = replace(SMALL, num_train=5, num_val=9)
    np.testing.assert_array_equal(first, render_scene(more, "train", 1).image)
    others = [(SMALL, "val", 1), (SMALL, "train", 2), (replace(SMALL, seed=1), "train", 1)]
    for other in others:
        image = render_scene(*other).image
        assert image.shape != first.shape or (image != first).mean() > 0.5


def test_objects_number_one_to_ten_and_every_class_occurs(scenes):
    counts = [len(scene.labels) for scene in scenes]
    assert min(counts) == 1
    assert 8 <= max(counts) <= 10
    occurrences = np.bincount([label for scene in scenes for label in scene.labels])
    assert len(occurrences) == len(CLASSES) >= 6
    # A class is drawn with probability 1/6; half of that is over four deviations away.
    assert occurrences.min() > occurrences.sum() / len(CLASSES) / 2


def test_whole_objects_measure_6_to_60_percent_of_the_image_and_small_ones_are_few(scenes):
    sides = np.array([box_sides(mask) for scene in scenes for mask in scene.full])
    assert sides.min() >= 0.06
    assert sides.max() <= 0.6
    assert sides.min() < 0.1
    assert sides.max() > 0.5
    assert (sides < 0.12).mean() < 0.25


def test_a_quarter_of_the_objects_is_occluded_and_none_is_lost(scenes):
    hidden = hidden_shares(scenes)
    assert 0.2 <= (hidden > 0.2).mean() <= 0.3
    assert hidden.max() <= 0.6 + 1e-9  # the rounding of 1 - 0.4


def test_visible_masks_are_whole_masks_less_what_was_painted_later(scenes):
    for scene in scenes[:10]:
        for k, visible in enumerate(scene.visible):
            later = scene.full[k + 1 :].any(axis=0)
            np.testing.assert_array_equal(visible, scene.full[k] & ~later)


def test_mean_colour_does_not_depend_on_the_class(scenes):
    pairs = [
        (label, scene.image[mask].mean(axis=0))
        for scene in scenes
        for label, mask in zip(scene.labels, scene.visible, strict=True)
    ]
    labels, colours = (np.array(column) for column in zip(*pairs, strict=True))
    known, unknown = np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1
    means = [colours[known & (labels == k)].mean(axis=0) for k in range(len(CLASSES))]
    distances = np.linalg.norm(colours[unknown, None] - np.array(means), axis=2)
    accuracy = (distances.argmin(axis=1) == labels[unknown]).mean()
    assert accuracy < 0.3  # chance is 1/6, with a deviation of 0.03 over some 150 objects


def test_objects_differ_from_their_surroundings(scenes):
    contrasts = []
    for scene in scenes:
        nothing = ~scene.full.any(axis=0)
        for mask in scene.visible:
            near = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
            if (near & nothing).any():
                outside = scene.image[near & nothing].mean(axis=0)
                contrasts.append(np.linalg.norm(scene.image[mask].mean(axis=0) - outside))
    # Shadow, blur and uneven light take some of the contrast that was painted, as does an object
    # below, which is then what the painted contrast refers to.
    assert np.median(contrasts) > MIN_CONTRAST
    assert np.quantile(contrasts, 0.1) > MIN_CONTRAST / 2


# pycocotools converts its arrays in a way that numpy 2 is about to drop.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("split", "num_images"), [("train", 4), ("val", 2)])
def test_coco_api_reads_the_files_back(root, split, num_images):
    coco = COCO(root / "annotations" / f"instances_{split}.json")
    assert len(coco.imgs) == num_images
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert np.diff(coco.getCatIds()).max() > 1
    for index, image in enumerate(coco.loadImgs(coco.getImgIds())):
        scene = render_scene(SMALL, split, index)
        pixels = cv2.imread(str(root / split / image["file_name"]))[..., ::-1]
        assert (image["height"], image["width"]) == pixels.shape[:2]
        # JPEG at quality 92 halves the colour's resolution and rounds; the mean error is small.
        assert np.abs(pixels.astype(int) - scene.image).mean() < 8
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(annotations) == len(scene.labels)
        for annotation, label, visible in zip(
            annotations, scene.labels, scene.visible, strict=True
        ):
            mask = coco.annToMask(annotation)
            np.testing.assert_array_equal(mask, visible)
            assert annotation["area"] == mask.sum()
            assert annotation["category_id"] == shapes.CATEGORY_IDS[label]
            x, y, width, height = annotation["bbox"]
            rows, columns = np.nonzero(mask)
            assert (x, x + width) == (columns.min(), columns.max() + 1)
            assert (y, y + height) == (rows.min(), rows.max() + 1)


def test_run_lengths_of_a_mask_count_down_the_columns():
    # Columns of this 2 x 3 mask: 1 0 | 1 1 | 0 1. Lengths start with the zeros, here none.
    mask = np.array([(True, True, False), (False, True, True)])
    assert run_lengths(mask) == {"size": [2, 3], "counts": [0, 1, 1, 2, 1, 1]}


def stop_after_two(monkeypatch):
    calls = []

    def render(*args):
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return render_scene(*args)

    monkeypatch.setattr(shapes, "render_scene", render)


def test_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    stop_after_two(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / "shapes", SMALL, show_progress=False)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_rebuild_keeps_the_earlier_data_set(tmp_path, monkeypatch):
    make_shapes(tmp_path / "shapes", SMALL, show_progress=False)
    before = read_files(tmp_path)
    stop_after_two(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        ensure_shapes(tmp_path / "shapes", replace(SMALL, seed=1), show_progress=False)
    assert read_files(tmp_path) == before


def test_ensure_makes_the_data_set_once_and_again_for_another_spec_or_version(
    tmp_path, monkeypatch
):
    root = tmp_path / "parent" / "shapes"
    ensure_shapes(root, SMALL, show_progress=False)
    made = root.stat().st_ino
    ensure_shapes(root, SMALL, show_progress=False)
    assert root.stat().st_ino == made
    ensure_shapes(root, replace(SMALL, num_val=1), show_progress=False)
    assert len(list((root / "val").iterdir())) == 1
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    ensure_shapes(root, replace(SMALL, num_val=1), show_progress=False)
    assert json.loads((root / "spec.json").read_text())["version"] == shapes.VERSION
    assert list(root.parent.iterdir()) == [root]


def test_folder_of_other_files_is_refused_and_not_changed(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=rf"{tmp_path}.*data\.root"):
        ensure_shapes(tmp_path, SMALL, show_progress=False)
    assert read_files(tmp_path).keys() == {(tmp_path / "photo.jpg").relative_to(tmp_path)}


def test_empty_folder_is_used(tmp_path):
    (tmp_path / "shapes").mkdir()
    ensure_shapes(tmp_path / "shapes", SMALL, show_progress=False)
    assert (tmp_path / "shapes" / "train" / "000001.jpg").is_file()


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"num_val": 0}, {"size": (64, 320)}])
def test_spec_that_cannot_be_rendered_is_refused(wrong):
    with pytest.raises(ConfigError, match="expected seed"):
        ShapesSpec(**wrong)
