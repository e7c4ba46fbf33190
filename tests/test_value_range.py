"""Images of more than 8 bits: their values keep their differences, everywhere the same."""

import json

import numpy as np
import pytest
import runs
from PIL import Image

import mbv2det
from mbv2det.data.annotations import Annotations
from mbv2det.data.dataset import read_sample
from mbv2det.data.images import decode_image, read_image
from mbv2det.data.statistics import measure_value_range
from mbv2det.deploy.inputs import find_sources
from mbv2det.errors import DataError
from mbv2det.structures import SampleKey
from mbv2det.weights.share_file import load_weights

RANGE = (51000.0, 52020.0)  # 1020 values: four to a grey level


def save(path, values, kind="png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, kind)
    return path


def split_of(*paths):
    paths = [str(path) for path in paths]
    return Annotations("split", np.array(paths), np.array(paths), np.zeros((len(paths), 2), int))


VALUES = np.array([[50000, 51000, 51510, 52020, 65535]])
GREYS = [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(np.uint16, "png"), (np.uint16, "tiff"), (np.int32, "tiff"), (np.float32, "tiff")],
)
def test_range_becomes_all_greys_and_the_rest_is_clipped(tmp_path, dtype, kind):
    path = save(tmp_path / f"a.{kind}", VALUES.astype(dtype), kind)
    image, faults = read_image(path, value_range=RANGE)
    assert faults == ()
    assert image[0].tolist() == [[grey] * 3 for grey in GREYS]
    np.testing.assert_array_equal(decode_image(path.read_bytes(), value_range=RANGE)[0], image)
    split = split_of(path)
    split = type(split)(**{**vars(split), "value_range": RANGE})
    np.testing.assert_array_equal(read_sample(split, SampleKey(0, 0)).image, image)
    (source,) = find_sources([str(path)], value_range=RANGE)
    np.testing.assert_array_equal(next(iter(source)).pixels, image)


def test_images_of_8_bits_are_not_changed(tmp_path):
    values = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    path = save(tmp_path / "a.png", values)
    np.testing.assert_array_equal(read_image(path, value_range=RANGE)[0], values)
    assert measure_value_range(split_of(path)) is None


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_without_a_range_the_loss_is_said(tmp_path, dtype):
    image, faults = read_image(save(tmp_path / "a.tiff", VALUES.astype(dtype), "tiff"))
    assert image[0, :, 0].tolist() == [value >> 8 for value in VALUES[0]]
    assert "more than 8 bits: 0..65535 becomes 0..255" in faults[0]


def test_fractions_need_a_range(tmp_path):
    path = save(tmp_path / "a.tiff", VALUES.astype(np.float32), "tiff")
    with pytest.raises(DataError, match=r"a\.tiff: expected a value range .*data\.value_range"):
        read_image(path)


def test_range_is_that_of_the_deep_images(tmp_path):
    paths = [
        save(tmp_path / "a.png", np.array([[300, 4000]], np.uint16)),
        save(tmp_path / "b.png", np.array([[7, 200]], np.uint8)),
        save(tmp_path / "c.tiff", np.array([[np.nan, 4095.5, np.inf]], np.float32), "tiff"),
    ]
    assert measure_value_range(split_of(*paths)) == (300, 4095.5)


def test_single_value_is_no_range(tmp_path):
    path = save(tmp_path / "a.png", np.full((2, 2), 700, np.uint16))
    assert measure_value_range(split_of(path)) is None


@pytest.mark.parametrize("value_range", ["[5,5]", "[9,5]"])
def test_descending_range_is_refused(tmp_path, value_range):
    config = runs.write_config(tmp_path)
    done = runs.run_command("train", config, f"--data.value_range={value_range}", check=False)
    assert done.returncode == 2
    assert "data.value_range: expected two ascending numbers" in done.stderr


@pytest.fixture(scope="module")
def thermal(tmp_path_factory):
    """Configuration of a small segmentation of warm squares, in images of 51000 to 52020."""
    root = tmp_path_factory.mktemp("thermal")
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((64, 64), np.uint8)
        top, left = rng.integers(4, 30, 2)
        mask[top : top + 26, left : left + 26] = 1
        values = 51200 + 600 * mask.astype(int) + rng.integers(-200, 220, mask.shape)
        values[0, :2] = RANGE
        save(root / f"images/{number}.png", values.astype(np.uint16))
        save(root / f"masks/{number}.png", mask)
    config = runs.write_config(root, heads=runs.SEGMENTATION, stride=16)
    lines = [x for x in config.read_text().splitlines() if "annotations/instances" not in x]
    text = "\n".join(lines).replace(f"root: {root}/shapes", f"root: {root}\n  format: folder")
    config.write_text(text.replace("  batch_size:", "  classes: [background, warm]\n  batch_size:"))
    done = runs.run_command("train", config, "--trainer.max_epochs=6")
    return root, config, done


def test_range_is_measured_said_and_stored(thermal):
    root, _, done = thermal
    assert "values 51000..52020 become 0..255 (data.value_range)" in done.stderr
    _, info = load_weights(root / "runs/tiny/1/best.safetensors")
    assert info.preprocess.value_range == RANGE


def test_eval_and_prediction_see_the_same_images(thermal, tmp_path):
    root, config, _ = thermal
    weights = root / "runs/tiny/1/best.safetensors"
    runs.run_command("eval", config, "--weights", weights, "--out", tmp_path / "m.json")
    trained = json.loads((root / "runs/tiny/1/metrics.json").read_text())["segmentation"]
    assert json.loads((tmp_path / "m.json").read_text())["segmentation"] == trained
    runs.run_command("predict", "--weights", weights, root / "images", "--out", tmp_path / "out")
    predictor = mbv2det.load(weights)
    for path in (root / "images").iterdir():
        written = np.asarray(Image.open(tmp_path / f"out/masks/{path.stem}.png"))
        for given in (path, path.read_bytes(), Image.open(path)):
            labels = predictor.predict(given).segmentation.labels.numpy()
            np.testing.assert_array_equal(labels, written)
