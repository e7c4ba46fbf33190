"""Training refuses what would mislead, and stops at unusable files or leaves them out."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import write_noise
from PIL import Image
from runs import SEGMENTATION, run_command, write_config

from mbv2det.checks.before_training import (
    describe_unusable,
    unusable_files,
)
from mbv2det.data.coco import read_coco
from mbv2det.data.dataset import AnnotatedImages, collate, read_usable_sample
from mbv2det.errors import DataError
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import SampleKey


@pytest.fixture
def tiny(tmp_path):
    """Returns a configuration, and a function that changes the training annotation."""
    config = write_config(tmp_path)
    file = tmp_path / "shapes/annotations/instances_train.json"

    def change(function):
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            function(annotation)
        file.write_text(json.dumps(content))

    return config, change


def fractions(annotation):
    annotation["bbox"] = [value / 500 for value in annotation["bbox"]]


def corners(annotation):
    # Shifted right and down, so that a corner is larger than the first one and reaches far out.
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x / 2 + 60, y / 2 + 60, x / 2 + width / 2 + 90, y / 2 + height / 2 + 90]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda annotation: annotation.update(iscrowd=1),
            "objects are crowds, which detectors",
        ),
        (fractions, "fractions of the image"),
        (corners, "corners where widths belong: write [x, y, width, height]"),
    ],
)
def test_training_refuses_what_would_mislead(tiny, change, reason):
    config, change_all = tiny
    change_all(change)
    done = run_command("train", config, check=False)
    assert done.returncode == 2
    assert reason in done.stderr


def damage(folder, names):
    for name in names:
        (folder / name).write_bytes(b"<html>")


def test_all_unusable_files_are_named_before_training(tiny, tmp_path):
    config, _ = tiny
    damage(tmp_path / "shapes/train", ["000002.jpg", "000007.jpg"])
    write_noise(tmp_path / "shapes/train/000004.png", 10, 10)
    (tmp_path / "shapes/train/000004.png").replace(tmp_path / "shapes/train/000004.jpg")
    done = run_command("train", config, check=False)
    assert done.returncode == 2
    assert "train: 3 of 8 images cannot be used" in done.stderr
    for name in ("000002", "000004", "000007"):
        assert f"{name}.jpg: " in done.stderr
    assert "data.on_error=skip leaves them out" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_training_leaves_out_and_counts_what_it_cannot_use(tiny, tmp_path):
    config, _ = tiny
    damage(tmp_path / "shapes/train", ["000002.jpg", "000007.jpg"])
    damage(tmp_path / "shapes/val", ["000001.jpg"])
    done = run_command("train", config, "--data.on_error=skip", "--trainer.max_epochs=2")
    assert "train: 2 of 8 images cannot be used" in done.stderr
    for epoch in (0, 1):
        assert f"epoch {epoch}: train: damaged images: 2 left out, 0 used in part" in done.stdout
        assert f"epoch {epoch}: val: damaged images: 1 left out, 0 used in part" in done.stdout
    (run,) = (tmp_path / "runs/tiny").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["detection"]["images"] == 4


def test_masks_of_the_wrong_size_are_left_out(tmp_path):
    config = write_config(tmp_path, heads=SEGMENTATION)
    root = tmp_path / "folder"
    for split in ("train", "val"):
        for index in range(4):
            write_noise(root / split / f"images/{index}.png", 40, 40)
            mask = np.zeros((40, 40), np.uint8)
            mask[10:30, 10:30] = 1
            (root / split / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / split / f"masks/{index}.png")
    Image.fromarray(np.ones((39, 40), np.uint8)).save(root / "train/masks/1.png")
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(root / "train/masks/2.png")
    settings = [f"--data.root={root}", "--data.format=folder", "--data.classes=[background,cell]"]
    for split in ("train", "val"):
        settings += [f"--data.{split}.images={split}/images", f"--data.{split}.masks={split}/masks"]
        settings.append(f"--data.{split}.annotations=null")
    settings += ["--data.batch_size=2", "--trainer.max_epochs=1"]
    refused = run_command("train", config, *settings, check=False)
    assert refused.returncode == 2
    assert "the mask has 39x40 (height x width), its image 40x40" in refused.stderr
    done = run_command("train", config, *settings, "--data.on_error=skip")
    assert "epoch 0: train: damaged images: 2 left out" in done.stdout


@pytest.fixture
def split(make_coco, tmp_path):
    return read_coco(*make_coco(tmp_path))


def test_the_next_usable_image_stands_in_and_is_not_counted(split):
    for index in (3, 4):
        split.path(index).write_bytes(b"")
    sample = read_usable_sample(split, SampleKey(2, 3))
    assert sample.key == SampleKey(2, 0, counted=False)
    assert list(sample.left_out) == [3, 4]
    assert str(split.path(4)) in sample.left_out[4]
    untouched = read_usable_sample(split, SampleKey(2, 1))
    assert (untouched.key, untouched.left_out) == (SampleKey(2, 1), {})


def test_a_split_without_any_usable_image_is_an_error(split):
    for index in range(len(split)):
        split.path(index).write_bytes(b"")
    with pytest.raises(DataError, match="expected images that can be used, got none"):
        read_usable_sample(split, SampleKey(0, 2))


def test_a_batch_names_what_it_left_out(split):
    split.path(1).write_bytes(b"")
    preprocessor = Preprocessor(PreprocessSpec((32, 32)))
    images = AnnotatedImages(split, preprocessor, on_error="skip")
    batch = collate([images[SampleKey(0, index)] for index in range(2)])
    assert list(batch.left_out) == [1]
    assert [key.index for key in batch.counted().keys] == [0]
    with pytest.raises(DataError):
        AnnotatedImages(split, preprocessor)[SampleKey(0, 1)]


def test_a_line_about_many_files_shows_the_first(split):
    for index in range(len(split)):
        Path(split.path(index)).write_bytes(b"")
    findings = unusable_files(split, "val")
    assert len(findings) == len(split)
    line = describe_unusable([*findings, *findings[:2]], split, "val")
    assert line.startswith("val: 5 of 5 images cannot be used: ")
    assert line.endswith("; and 2 more")
