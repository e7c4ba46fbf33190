"""The commands on VOC, whose boxes and masks have lists of their own, and on a folder of masks."""

import json
import shutil

import numpy as np
import pytest
from conftest import voc_object
from PIL import Image
from runs import run_command

import mbv2det

CAT, DOG = 8, 12
NAMES = [f"2012_{number}" for number in range(8)]
LISTS = {
    "Main/train": NAMES[:4],
    "Segmentation/train": NAMES[2:6],
    "Main/val": NAMES[6:],
    "Segmentation/val": NAMES[7:],
}
CONFIG = """
backbone: {{width_mult: 0.35, output_stride: 16}}
data: {{root: {root}, {data}, image_size: [49, 65], resize: fit, batch_size: 4, num_workers: 0}}
augment: {{expand: 0.0, iou_crop: false, scale: [0.75, 1.5]}}
optim: {{name: adamw, lr: 0.002, warmup_steps: 0}}
trainer:
  max_epochs: 1
  accelerator: cpu
  precision: 32-true
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  default_root_dir: {runs}
"""
FOLDER = (
    "format: folder, train: {images: train, masks: train_masks}, "
    "val: {images: val, masks: val_masks}"
)


def scene(number):
    """Returns an image of 48x64 with a cat or a dog, and its mask with an ignored rim."""
    label = (CAT, DOG)[number % 2]
    image = np.random.default_rng(number).integers(0, 60, (48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    image[8:40, 12:44, number % 2] = 220
    mask[7:41, 11:45] = 255
    mask[8:40, 12:44] = label
    return image, mask


def save_mask(mask, path):
    """Returns a palette PNG, as VOC's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette([*range(256)] * 3)
    image.save(path)


def write_config(folder, data):
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(root=folder / "data", data=data, runs=folder / "runs"))
    return path


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Returns a configuration, and what training and evaluating both heads with it left behind."""
    folder = tmp_path_factory.mktemp("voc")
    year_folder = folder / "data/VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (year_folder / name).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        image, mask = scene(number)
        Image.fromarray(image).save(year_folder / f"JPEGImages/{name}.jpg")
        if name in LISTS["Segmentation/train"] + LISTS["Segmentation/val"]:
            save_mask(mask, year_folder / f"SegmentationClass/{name}.png")
        if name in LISTS["Main/train"] + LISTS["Main/val"]:
            size = "<size><width>64</width><height>48</height></size>"
            content = voc_object(("cat", "dog")[number % 2], (13, 9, 44, 40))
            xml = f"<annotation>{size}{content}</annotation>"
            (year_folder / f"Annotations/{name}.xml").write_text(xml)
    for name, lines in LISTS.items():
        (year_folder / f"ImageSets/{name}.txt").write_text("\n".join(lines) + "\n")
    data = "format: voc, train: {split: train}, val: {split: val}"
    config = write_config(folder, data)
    with config.open("a") as file:
        file.write("heads: {detection: {name: ssdlite}, segmentation: {name: deeplabv3}}\n")
    trained = run_command("train", config)
    run = folder / "runs/tiny/1"
    out = folder / "metrics.json"
    evaluated = run_command("eval", config, "--weights", run / "best.safetensors", "--out", out)
    return config, run, trained, evaluated


def test_train_logs_how_many_images_have_boxes_and_masks(voc):
    lines = voc[2].stderr.splitlines()
    assert (
        "train: 6 images, 4 objects of 2 classes, 2 without annotated boxes, 4 masks of 21 labels"
    ) in lines
    assert "val: 2 images, 2 objects of 2 classes, 1 masks of 21 labels" in lines
    (pixels,) = [line for line in lines if line.startswith("pixels of ")]
    assert pixels.startswith("pixels of 4 of 4 masks: background ")


def test_metrics_have_a_section_for_each_task(voc):
    metrics = json.loads((voc[1] / "metrics.json").read_text())
    assert list(metrics["detection"]["per_class"]) == ["cat", "dog"]
    assert len(metrics["segmentation"]["per_class"]) == 21
    images = [metrics[task]["images"] for task in ("detection", "segmentation")]
    assert images == [2, 1]
    assert metrics["images"] == 2


def test_eval_gives_the_metrics_of_training(voc):
    config, run, _, evaluated = voc
    trained = json.loads((run / "metrics.json").read_text())
    metrics = json.loads((config.parent / "metrics.json").read_text())
    assert metrics["detection"] == trained["detection"]
    assert metrics["segmentation"] == trained["segmentation"]
    assert "val: 2 images, 2 objects of 2 classes, 1 masks of 21 labels" in evaluated.stderr


def test_predict_finds_boxes_and_a_mask(voc, tmp_path):
    config, run = voc[:2]
    image = config.parent / f"data/VOC2012/JPEGImages/{NAMES[6]}.jpg"
    run_command("predict", "--weights", run / "best.safetensors", image, "--out", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert {result["image_id"] for result in results} == {NAMES[6]}
    with Image.open(tmp_path / f"masks/{NAMES[6]}.png") as mask:
        assert (mask.mode, mask.size) == ("P", (64, 48))
        assert set(np.unique(np.asarray(mask)).tolist()) <= set(range(21))
    assert (tmp_path / f"pictures/{NAMES[6]}.jpg").is_file()


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Returns a configuration of a folder of masks that gives no names; four images to train on."""
    folder = tmp_path_factory.mktemp("masks")
    for number, name in enumerate(NAMES[:6]):
        split = "train" if number < 4 else "val"
        image, mask = scene(number)
        (folder / f"data/{split}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"data/{split}/{name}.png")
        save_mask(mask, folder / f"data/{split}_masks/{name}.png")
    config = write_config(folder, FOLDER)
    with config.open("a") as file:
        file.write("heads: {segmentation: {name: deeplabv3}}\n")
    return config


NAMED = ("--data.classes=[background,cat,dog]", f"--data.mask_values=[0,{CAT},{DOG}]")


def test_eval_of_a_folder_uses_the_weights_names(masks, tmp_path):
    run_command("train", masks, *NAMED, f"--trainer.default_root_dir={tmp_path}")
    weights, out = tmp_path / "tiny/1/best.safetensors", tmp_path / "m.json"
    run_command("eval", masks, "--weights", weights, "--data.format=folder", "--out", out)
    trained = json.loads((tmp_path / "tiny/1/metrics.json").read_text())["segmentation"]
    assert list(trained["per_class"]) == ["background", "cat", "dog"]
    assert json.loads(out.read_text())["segmentation"] == trained
    assert mbv2det.load(weights).info.label_maps["segmentation"].ids == (0, CAT, DOG)


def resized(path):
    with Image.open(path) as mask:
        smaller = mask.resize((60, 48), Image.Resampling.NEAREST)
    smaller.save(path)


def coloured(path):
    with Image.open(path) as mask:
        colours = mask.convert("RGB")
    colours.save(path)


def removed(path):
    path.unlink()


def overflowing(path):
    Image.new("L", (64, 48), 9).save(path)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (resized, ("masks/2012_1.png", "has 48x60", "48x64")),
        (coloured, ("masks/2012_1.png: expected an index image", "got colours in mode RGB")),
        (removed, ("masks/2012_1.png: expected the mask of ", "2012_1.png, found none")),
        (overflowing, ("masks/2012_1.png: expected only the values 0, 8, 12, 255 ", "also got 9")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_faulty_mask_ends_training_in_one_line(masks, tmp_path, damage, parts):
    shutil.copytree(masks.parent / "data", tmp_path / "data")
    damage(tmp_path / "data/train_masks/2012_1.png")
    config = write_config(tmp_path, FOLDER)
    done = run_command("train", config, *NAMED, "--heads.segmentation.name=deeplabv3", check=False)
    (error,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert done.returncode == 2
    assert [part for part in parts if part not in error] == [], error
    assert "Traceback" not in done.stderr
