"""What a predictor takes, and that its faster network computes what the trained one does."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import randomise
from PIL import Image

from mbv2det.backbones.layers import Conv2dSame
from mbv2det.build import build_model
from mbv2det.deploy.predictor import Predictor
from mbv2det.deploy.prepare import prepared
from mbv2det.errors import ConfigError, DataError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo

pytestmark = pytest.mark.usefixtures("one_thread")

INFO = WeightsInfo(
    ModelConfig(
        BackboneConfig(width_mult=0.1, padding="same"),
        {"detection": SSDLiteConfig(), "segmentation": DeepLabV3Config(channels=16)},
    ),
    PreprocessSpec((64, 96)),
    {
        "detection": LabelMap(("cat", "dog"), (7, 90)),
        "segmentation": LabelMap.of_masks(("background", "tree")),
    },
)


@pytest.fixture(scope="module")
def predictor():
    model = randomise(build_model(INFO.model, INFO.preprocess, INFO.label_maps))
    return Predictor.of_model(model, INFO, "cpu")


def pixels(height=50, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def assert_equal(first, second):
    assert len(second.detection) > 0
    for part in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(first.detection, part), getattr(second.detection, part))
    assert torch.equal(first.segmentation.labels, second.segmentation.labels)


def test_every_kind_of_image_gives_the_same_prediction(predictor, tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(pixels()).save(file)
    expected = predictor([pixels()])[0]
    for image in (str(file), file, file.read_bytes(), Image.open(file)):
        assert_equal(predictor.predict(image), expected)
    assert_equal(predictor.predict_file(file), expected)


def test_files_and_images_of_pil_are_turned_upright_alike(predictor):
    turned, content = Image.fromarray(pixels()), io.BytesIO()
    exif = turned.getexif()
    exif[0x0112] = 6  # 90 degrees clockwise
    turned.save(content, "PNG", exif=exif)
    expected = predictor([np.rot90(pixels(), -1).copy()])[0]
    assert expected.segmentation.labels.shape == (70, 50)
    assert_equal(predictor.predict(content.getvalue()), expected)
    assert_equal(predictor.predict(Image.open(content)), expected)


def test_a_list_of_images_of_any_sizes_gives_a_prediction_for_each(predictor):
    images = [pixels(50, 70), pixels(64, 96, 1), pixels(9, 200, 2)]
    predictions = predictor(images)
    assert [tuple(p.segmentation.labels.shape) for p in predictions] == [
        (50, 70), (64, 96), (9, 200)
    ]  # fmt: skip
    for prediction, image in zip(predictions, images, strict=True):
        alone = predictor.predict(image)
        # A batch adds up in another order.
        torch.testing.assert_close(
            prediction.detection.boxes, alone.detection.boxes, rtol=0, atol=1e-3
        )
    assert predictor([]) == []


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
     np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "alpha", "float", "empty"],
)  # fmt: skip
def test_an_array_of_another_kind_is_refused(predictor, array):
    with pytest.raises(DataError, match=r"image: expected an array \(height, width, 3\) of uint8"):
        predictor([array])


def test_bytes_that_are_no_image_are_refused(predictor):
    with pytest.raises(
        DataError, match="bytes: expected an image file, got a file of another kind"
    ):
        predictor.predict(b"no image")


def test_one_path_in_place_of_a_list_is_refused(predictor):
    with pytest.raises(TypeError, match="expected a list of images"):
        predictor("image.jpg")


def test_folded_batch_norm_computes_the_same(predictor):
    images = torch.from_numpy(np.stack([pixels(64, 96), pixels(64, 96, 1)])).permute(0, 3, 1, 2)
    network = prepared(predictor.model)
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, Conv2dSame)]
    with torch.inference_mode():
        outputs, expected = network(images), predictor.model(images)
    for task in predictor.tasks:
        raw, trained = (task.raw_tensor(o[task.name]) for o in (outputs, expected))
        # Other products and sums, of values of order ten.
        torch.testing.assert_close(raw, trained, rtol=1e-4, atol=1e-4)
    assert [m for m in predictor.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_bfloat16_stays_close(predictor):
    half = Predictor.of_model(predictor.model, INFO, "cpu", dtype=torch.bfloat16)
    labels, expected = (p.predict(pixels()).segmentation.labels for p in (half, predictor))
    # 8 bits of mantissa flip the label of pixels near a border.
    assert (labels == expected).float().mean() > 0.9
    assert half.predict(pixels()).detection.boxes.dtype == torch.float32


def test_threads_do_not_disturb_each_other(predictor):
    images = [pixels(40 + i, 60, i) for i in range(12)]
    expected = [predictor.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for prediction, alone in zip(
                pool.map(predictor.predict, images), expected, strict=True
            ):
                assert_equal(prediction, alone)


def test_an_exported_file_has_no_network_in_pytorch(predictor):
    with pytest.raises(ConfigError, match="model: expected a weights file, got an exported one"):
        _ = Predictor(predictor.runtime, INFO).model


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's mallopt")
def test_freed_memory_is_kept_on_request():
    # In a process of its own: the setting lasts for the whole process.
    code = """
import resource, torch
from mbv2det.deploy.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
without = faults()
taken = keep_freed_memory()
faults()
print(taken, without > 10 * faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, fewer = done.stdout.split()
    if taken == "False":
        pytest.skip("the C library has no mallopt")
    assert fewer == "True"
