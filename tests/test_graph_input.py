"""Graphs that resize images: the pixels of the preprocessor, results in those of the image."""

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise
from PIL import Image
from torch import nn

import mbv2det
from mbv2det.build import build_model, trainable
from mbv2det.config import EvalSettings
from mbv2det.data.annotations import Annotations
from mbv2det.data.index_masks import IndexMasks
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.graph_input import ResizedInput
from mbv2det.deploy.measure import measure
from mbv2det.deploy.predictor import Predictor
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import Sample, SampleKey
from mbv2det.weights.header import WeightsInfo

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(65, 97), (480, 640), (50, 70), (131, 61), (1, 1), (900, 3), (3, 900), (64, 97)]
RULES = ["stretch", "fit"]
LABELS = LabelMap.of_masks(("background", "tree", "sea"))


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def spec_of(rule):
    return PreprocessSpec((65, 97), rule, mean=(0.485, 0.456, 0.406))


@pytest.fixture(autouse=True, scope="module")
def untyped():
    """Turns the checks of shapes off: they compare sizes, and torch.export would fix those."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class InputAlone(nn.Module):
    """What a graph does before its network."""

    names = ("resized", "scale", "sides")
    resizes = True

    def __init__(self, spec):
        super().__init__()
        self.input = ResizedInput(spec)

    def forward(self, images):
        resized, frame = self.input(images)
        return resized + 0, frame.scale + 0, frame.sides + 0


@pytest.fixture(scope="module", params=RULES)
def graph(request):
    """Returns the rule of a resize, and a graph that does it."""
    from mbv2det.deploy.formats.onnx import onnx_program

    images = torch.zeros(2, 3, 71, 90, dtype=torch.uint8)
    program = onnx_program(InputAlone(spec_of(request.param)), images)
    return request.param, onnxruntime.InferenceSession(program.model_proto.SerializeToString())


@pytest.mark.parametrize("size", SIZES)
def test_a_graph_resizes_as_the_preprocessor(graph, size):
    rule, session = graph
    images = np.stack([pixels(*size, seed).transpose(2, 0, 1) for seed in range(2)])
    resized, scale, sides = session.run(None, {"images": images})
    preprocessor = Preprocessor(spec_of(rule))
    for image, got in zip(images, resized, strict=True):
        sample = Sample(SampleKey(0, 0), image.transpose(1, 2, 0), Frame(size))
        expected = preprocessor(sample).image.transpose(2, 0, 1)
        assert np.abs(got.astype(int) - expected).max() <= 1
        assert (got != expected).mean() < 0.06  # of noise; half a pixel off changes nearly all
    np.testing.assert_allclose(scale, preprocessor.frame(size).scale, rtol=1e-6)
    assert tuple(sides) == size


@pytest.fixture(scope="module", params=RULES)
def model(request, tmp_path_factory):
    """Returns a network, its header, and a file that resizes."""
    info = WeightsInfo(
        ModelConfig(
            BackboneConfig(width_mult=0.1),
            {"detection": SSDLiteConfig(), "segmentation": DeepLabV3Config(channels=16)},
        ),
        spec_of(request.param),
        {
            "detection": LabelMap(("cat", "dog"), (7, 90)),
            "segmentation": LABELS,
        },
        eval=EvalConfig(score_threshold=0.3),
    )
    network = randomise(build_model(info.model, info.preprocess, info.label_maps))
    path = tmp_path_factory.mktemp("resizing") / "model.onnx"
    export(Export(network, info, FORMATS["onnx"], resizes=True), path)
    return network, info, path


def test_results_are_in_the_pixels_of_the_images(model):
    network, info, path = model
    predictor, reference = mbv2det.load(path, threads=1), Predictor.of_model(network, info, "cpu")
    images = [pixels(*size) for size in (*SIZES, SIZES[1])]
    assert predictor([]) == []
    for image, got, want in zip(images, predictor(images), reference(images), strict=True):
        height, width = image.shape[:2]
        assert got.segmentation.labels.shape == (height, width)
        # A pixel of the network input may differ by 1.
        assert (got.segmentation.labels != want.segmentation.labels).float().mean() < 0.01
        boxes, scores = got.detection.boxes, got.detection.scores
        limits = torch.tensor([width, height, width, height])
        assert (boxes >= 0).all()
        assert (boxes <= limits).all()
        assert abs(len(boxes) - len(want.detection)) <= 1 + len(boxes) // 20
        for box, score in list(zip(want.detection.boxes, want.detection.scores, strict=True))[:20]:
            near = ((boxes - box) / limits).abs().amax(dim=1) < 0.02
            assert (scores[near] - score).abs().min() < 0.02


def test_a_file_that_resizes_is_measured_image_by_image(model, tmp_path):
    network, info, path = model
    names = []
    for number, size in enumerate([(40, 50), (70, 60), (65, 97)]):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels(*size)).save(names[-1])
        Image.fromarray(pixels(*size, 1)[..., 0] % 3).save(tmp_path / f"{number}.mask.png")
    files = [name.replace(".png", ".mask.png") for name in names]
    masks = IndexMasks.of(LABELS, files)
    split = Annotations(
        "three images", np.array(names), np.array(names), np.zeros((3, 2), np.int64), masks=masks
    )
    values = []
    for predictor in (mbv2det.load(path, threads=1), Predictor.of_model(network, info, "cpu")):
        tasks = [task for task in trainable(predictor.tasks) if task.name == "segmentation"]
        document = measure(predictor, tasks, split, EvalSettings(), batch_size=2)
        assert document["images"] == 3
        values.append(document["segmentation"]["mIoU"])
    assert values[0] == pytest.approx(values[1], abs=0.01)


def test_what_cannot_resize_is_refused(model):
    network, info, path = model
    wrong = [
        ("openvino", {}, "--resize: openvino files cannot resize images; onnx files can"),
        ("onnx", {"segmentation": "logits"}, "--segmentation: expected classes for onnx with"),
    ]
    for format, options, message in wrong:
        pytest.importorskip("openvino")
        request = Export(network, info, FORMATS[format], options=options, resizes=True)
        with pytest.raises(ConfigError, match=message):
            export(request, path.with_name(f"wrong{FORMATS[format].suffix}"))
    with pytest.raises(ConfigError, match=r"without --resize for OpenVINO|OpenVINO cannot read it"):
        mbv2det.load(path, backend="openvino")
