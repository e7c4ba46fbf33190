"""Odd files through the loader of evaluation and every backend: equal inputs, equal results."""

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise
from PIL import Image

import mbv2det
from mbv2det.build import build_model
from mbv2det.data.annotations import Annotations
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.predictor import Predictor
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import SampleKey
from mbv2det.weights.header import WeightsInfo

pytestmark = pytest.mark.usefixtures("one_thread")

INFO = WeightsInfo(
    ModelConfig(
        BackboneConfig(width_mult=0.1),
        {"detection": SSDLiteConfig(), "segmentation": DeepLabV3Config(channels=16)},
    ),
    PreprocessSpec((64, 96)),
    {
        "detection": LabelMap(("cat", "dog"), (7, 90)),
        "segmentation": LabelMap.of_masks(("background", "tree")),
    },
)
BACKENDS = ["torch", "torch of pt2", "onnxruntime", "openvino"]


def write_odd_files(folder):
    """Files that loaders treat in different ways; returns their paths."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    turned = colour.getexif()
    turned[0x0112] = 6  # 90 degrees clockwise
    deep = rng.integers(0, 65536, (30, 50), np.uint16)
    images = {
        "turned.jpg": (colour, {"exif": turned}),
        "grey.png": (colour.convert("L"), {}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "sixteen_bits.png": (Image.fromarray(deep), {}),
        "alpha.png": (colour.convert("RGBA"), {}),
        "palette.png": (colour.convert("P"), {}),
        "one_pixel.png": (colour.crop((0, 0, 1, 1)), {}),
        "three_columns.png": (colour.resize((3, 900)), {}),
        "three_rows.png": (colour.resize((900, 3)), {}),
        "large.jpg": (colour.resize((700, 500)), {}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
    return [folder / name for name in images]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_odd_files(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def network():
    return randomise(build_model(INFO.model, INFO.preprocess, INFO.label_maps))


@pytest.fixture(scope="module")
def predictors(network, tmp_path_factory):
    """Returns the predictor of a backend; skips the test where its package is missing."""
    jaxtyping.config.update("jaxtyping_disable", True)  # checks would fix the number of images
    folder, options = tmp_path_factory.mktemp("odd_models"), {"segmentation": "logits"}

    def make(backend):
        if backend == "torch":
            return Predictor.of_model(network, INFO, "cpu")
        format = "pt2" if backend == "torch of pt2" else "onnx"
        for package in (*FORMATS[format].packages, backend.split()[0]):
            pytest.importorskip(package)
        path = folder / f"model{FORMATS[format].suffix}"
        if not path.exists():
            export(Export(network, INFO, FORMATS[format], options=options), path)
        return mbv2det.load(path, backend.split()[0], "cpu", threads=1)

    yield make
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def evaluated(files):
    """Images and frames as the loader of evaluation gives them."""
    names = [file.name for file in files]
    split = Annotations(
        "odd files",
        np.array(names),
        np.array([str(file) for file in files]),
        np.zeros((len(files), 2), np.int64),
    )
    loader = AnnotatedImages(split, Preprocessor(INFO.preprocess))
    return collate([loader[SampleKey(0, index)] for index in range(len(files))])


class Recorder:
    """A runtime that keeps the images that it gets."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.name, self.max_batch = runtime.name, runtime.max_batch
        self.images = []

    def __call__(self, images):
        self.images.append(images)
        return self.runtime(images)


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_files_give_the_same_input_and_results(backend, predictors, evaluated, files):
    predictor, reference = predictors(backend), predictors("torch")
    predictor.runtime = Recorder(predictor.runtime)
    predictions = predictor(files)
    assert torch.equal(torch.cat(predictor.runtime.images), evaluated.images)
    expected = reference.predict_batch(evaluated.images, evaluated.frames)
    for file, got, wanted in zip(files, predictions, expected, strict=True):
        assert_same(got, wanted, file.name)


def assert_same(got, expected, name):
    assert torch.equal(got.segmentation.labels, expected.segmentation.labels), name
    scores = [p.detection.scores for p in (got, expected)]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-3, msg=name)
    if len(expected.detection) == 0:
        return
    # Equal scores may stand in any order, so each box is compared with the nearest of its class,
    # in units of the image's sides: 1e-3 of the network's input is a tenth of a pixel.
    height, width = expected.segmentation.labels.shape
    sides = torch.tensor([width, height, width, height])
    for box, label in zip(expected.detection.boxes, expected.detection.labels, strict=True):
        same = got.detection.boxes[got.detection.labels == label]
        assert ((same - box) / sides).abs().amax(dim=1).min() < 1e-3, name
