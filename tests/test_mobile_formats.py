"""Files for phones and single-board computers: ncnn, LiteRT, Core ML."""

import sys
from concurrent.futures import ThreadPoolExecutor

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise

import mbv2det
from mbv2det.build import build_model
from mbv2det.deploy.check import output_differences
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.graph import decode_metadata
from mbv2det.deploy.load import load_graph
from mbv2det.deploy.predictor import Predictor
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.gfl_lite import GFLLiteConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo

SIZE = (65, 97)
DETECTOR, SEGMENTER = SSDLiteConfig(), DeepLabV3Config(channels=16)
MODELS = {
    "points": {"detection": GFLLiteConfig(channels=16)},
    "detector": {"detection": DETECTOR},
    "segmenter": {"segmentation": SEGMENTER},
    "light segmenter": {"segmentation": DeepLabV3LightConfig(channels=16)},
    "joint": {"detection": DETECTOR, "segmentation": SEGMENTER},
    "focal joint": {"detection": SSDLiteConfig(class_loss="focal"), "segmentation": LRASPPConfig()},
    "classifier": {"classification": ClassifierConfig()},
}
RAW = {"nms": "none", "segmentation": "logits"}
LABEL_MAPS = {
    "detection": LabelMap(("cat", "dog"), (7, 90)),
    "segmentation": LabelMap.of_masks(("background", "tree", "road")),
    "classification": LabelMap.of_masks([f"class {k}" for k in range(7)]),
}


@pytest.fixture(autouse=True, scope="module")
def untyped():
    """Turns the checks of shapes off: they compare sizes, and torch.export would fix those."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def info_of(model):
    heads = MODELS[model]
    return WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=0.1, padding="same"), heads),
        PreprocessSpec(SIZE),
        {task: LABEL_MAPS[task] for task in heads},
        eval=EvalConfig(score_threshold=0.3),
    )


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model once; returns file, network and header, or skips without the packages."""
    files = {}

    def make(model, format, precision="fp32", options=None):
        kind = FORMATS[format]
        for package in kind.packages:
            pytest.importorskip(package, reason=f"needs the extra {kind.extra}")
        key = (model, format, precision, str(options))
        if key not in files:
            info = info_of(model)
            network = randomise(build_model(info.model, info.preprocess, info.label_maps))
            path = tmp_path_factory.mktemp("exported") / f"model{kind.suffix}"
            names = {"detection": "nms", "segmentation": "segmentation"}
            chosen = {names[task]: RAW[names[task]] for task in MODELS[model] if task in names}
            export(Export(network, info, kind, precision, options or chosen), path)
            files[key] = path, network, info
        return files[key]

    return make


@pytest.mark.parametrize("format", ["ncnn", "litert"])
@pytest.mark.parametrize("model", MODELS)
def test_a_file_computes_what_pytorch_does(model, format, exported):
    path, network, _ = exported(model, format)
    runtime = load_graph(path, threads=1)
    assert runtime.name == format
    assert runtime.max_batch == 1
    images = [torch.from_numpy(pixels(*SIZE, n)).permute(2, 0, 1)[None] for n in range(2)]
    differences = output_differences(network, runtime, images)
    # Other products and sums in float32, of boxes of up to 100 pixels.
    assert max(differences.values()) < 1e-4, differences


@pytest.mark.parametrize("format", ["ncnn", "litert"])
def test_a_file_predicts_what_pytorch_does_at_any_size(format, exported):
    path, network, info = exported("joint", format)
    images = [pixels(50, 70), pixels(130, 61, 1), pixels(*SIZE, 2)]
    predictor, reference = mbv2det.load(path, threads=1), Predictor.of_model(network, info, "cpu")
    for got, want in zip(predictor(images), reference(images), strict=True):
        assert len(got.detection) == len(want.detection) > 0
        torch.testing.assert_close(got.detection.scores, want.detection.scores, rtol=0, atol=1e-4)
        assert torch.equal(got.segmentation.labels, want.segmentation.labels)


@pytest.mark.parametrize("format", ["ncnn", "litert"])
def test_several_threads_may_predict_at_once(format, exported):
    path, _, _ = exported("detector", format)
    runtime = load_graph(path, threads=1)
    images = [torch.from_numpy(pixels(*SIZE, n)).permute(2, 0, 1)[None] for n in range(12)]
    alone = [runtime(image)["scores"] for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: runtime(image)["scores"], images))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(alone[0], alone[1])


def test_litert_holds_the_map_of_classes(exported):
    path, network, info = exported("segmenter", "litert", options={"segmentation": "classes"})
    (got,), (want,) = (
        predictor([pixels(*SIZE)])
        for predictor in (mbv2det.load(path), Predictor.of_model(network, info, "cpu"))
    )
    assert torch.equal(got.segmentation.labels, want.segmentation.labels)


def test_ncnn_in_half_precision_stays_close(exported):
    path, network, _ = exported("detector", "ncnn", "fp16")
    full, _, _ = exported("detector", "ncnn")
    images = [torch.from_numpy(pixels(*SIZE)).permute(2, 0, 1)[None]]
    differences = output_differences(network, load_graph(path, threads=1), images)
    assert 0 < differences["scores"] < 5e-3
    sizes = [file.with_suffix(".bin").stat().st_size for file in (path, full)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("ncnn", {"nms": "inside"}, "--nms: expected none for ncnn, got inside"),
        ("ncnn", {"segmentation": "classes"}, "--segmentation: expected logits for ncnn"),
        ("litert", {"nms": "inside"}, "--nms: expected none for litert, got inside"),
        ("coreml", {"nms": "inside"}, "--nms: expected none for coreml, got inside"),
    ],
)
def test_what_a_format_lacks_is_refused(format, options, message, exported):
    with pytest.raises(ConfigError, match=message):
        exported("joint", format, options=options)


@pytest.mark.parametrize(("model", "precision"), [("joint", "fp32"), ("focal joint", "fp16")])
def test_a_core_ml_file_describes_the_network(model, precision, exported):
    path, network, info = exported(model, "coreml", precision)
    import coremltools

    description = coremltools.utils.load_spec(str(path)).description
    outputs = {o.name: list(o.type.multiArrayType.shape) for o in description.output}
    images = torch.zeros(1, 3, *SIZE)
    anchors = network(images)["detection"].anchors.shape[0]
    assert outputs["boxes"] == [1, anchors, 4]
    assert outputs["scores"] == [1, anchors, 2]
    assert [list(i.type.multiArrayType.shape) for i in description.input] == [[1, 3, *SIZE]]
    stored, graph = decode_metadata(description.metadata.userDefined, str(path))
    assert stored == info
    assert graph.precision == precision
    with pytest.raises(ConfigError, match="only macOS runs Core ML files"):
        mbv2det.load(path)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("model.param", "ncnn", "ncnn"),
        ("model.tflite", "ai_edge_litert", "litert"),
    ],
)
def test_damaged_files_and_missing_packages_are_one_line(
    name, module, extra, exported, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, None)
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(ConfigError, match=rf"the package {module}.*'mbv2det\[{extra}\]'"):
            mbv2det.load(tmp_path / name)
    path, _, _ = exported("classifier", extra)
    with pytest.raises(ConfigError, match=f"{name}: expected a file that mbv2det exported"):
        mbv2det.load(tmp_path / name)
    beside = path.with_name(f"{path.name}.json")
    (tmp_path / f"{name}.json").write_bytes(beside.read_bytes())
    with pytest.raises(ConfigError, match=f"{name}: .* cannot read it"):
        mbv2det.load(tmp_path / name)
