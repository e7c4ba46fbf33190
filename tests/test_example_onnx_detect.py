"""The example that runs an exported detector without this package."""

import importlib.metadata
import importlib.util
import json
import subprocess
import venv

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise
from packaging.requirements import Requirement
from runs import ROOT

import mbv2det
from mbv2det.build import build_model
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.geometry import Frame
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import Sample, SampleKey
from mbv2det.weights.header import WeightsInfo

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = ROOT / "examples/onnx_detect.py"
SIZE = (64, 96)


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("onnx_detect", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    for package in FORMATS["onnx"].packages:
        pytest.importorskip(package)
    info = WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=0.1), {"detection": SSDLiteConfig()}),
        PreprocessSpec(SIZE),
        {"detection": LabelMap(("cat", "dog"), (1, 2))},
        eval=EvalConfig(score_threshold=0.01),
    )
    network = randomise(build_model(info.model, info.preprocess, info.label_maps))
    path = tmp_path_factory.mktemp("example") / "model.onnx"
    jaxtyping.config.update("jaxtyping_disable", True)  # torch.export would fix the sizes
    export(Export(network, info, FORMATS["onnx"]), path)
    jaxtyping.config.update("jaxtyping_disable", False)
    return path


def made_image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) <= 60


@pytest.mark.parametrize("size", [SIZE, (50, 70), (200, 333), (1, 1), (900, 3)])
def test_it_resizes_as_this_package_does(example, size):
    image = made_image(*size)
    sample = Preprocessor(PreprocessSpec(SIZE))(Sample(SampleKey(0, 0), image, Frame(size)))
    got = example.resize(image, SIZE)
    # One step of 256: torch rounds its weights to fixed point.
    assert np.abs(got.astype(int) - sample.image).max() <= 1


def test_it_finds_what_the_predictor_finds(example, model):
    image = made_image(*SIZE)  # of the network's size, so that both see equal pixels
    expected = mbv2det.load(model, threads=1).predict(image).detection
    session = example.onnxruntime.InferenceSession(str(model))
    got = example.detect(session, image, min_score=0.0)
    assert len(got) == len(expected) > 0
    names, scores, boxes = zip(*got, strict=True)
    assert names == tuple(("cat", "dog")[label] for label in expected.labels)
    # The same file in the same runtime, whose threads may add up in another order.
    torch.testing.assert_close(torch.tensor(scores), expected.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor(boxes), expected.boxes, rtol=0, atol=1e-3)


def test_boxes_are_in_pixels_of_the_image(example, model):
    session = example.onnxruntime.InferenceSession(str(model))
    small, large = made_image(*SIZE), made_image(*SIZE).repeat(2, axis=0).repeat(3, axis=1)
    by_size = [example.detect(session, image, min_score=0.0)[0][2] for image in (small, large)]
    # Both give nearly the same pixels at the network; a mistaken scale would differ by half.
    np.testing.assert_allclose(by_size[1], np.array(by_size[0]) * [3, 2, 3, 2], atol=15)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """Returns the Python of an environment with numpy, onnxruntime and what these require alone."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env")
    site = next((folder / "env").glob("lib/python*/site-packages"))
    for name in with_requirements(["numpy", "onnxruntime"]):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return folder / "env/bin/python"


def with_requirements(names):
    """Returns the names of distributions and of all that they require without extras."""
    wanted, todo = [], list(names)
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.append(name)
            texts = importlib.metadata.requires(name) or []
            requirements = [Requirement(text) for text in texts]
            todo += [r.name for r in requirements if r.marker is None or r.marker.evaluate()]
    return wanted


def test_it_runs_in_an_environment_without_this_package(model, bare_python, tmp_path):
    np.save(tmp_path / "photo.npy", made_image(*SIZE))
    for package in ("mbv2det", "torch", "PIL", "cv2"):
        done = subprocess.run([bare_python, "-c", f"import {package}"], capture_output=True)
        assert b"ModuleNotFoundError" in done.stderr
    arguments = [bare_python, FILE, model, tmp_path / "photo.npy", "0.01"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert all(row["class"] in ("cat", "dog") and len(row["box"]) == 4 for row in rows)
