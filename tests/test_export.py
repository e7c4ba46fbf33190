"""Exported files: written, read back and run, they compute what the network in PyTorch computes."""

import json
import sys
from dataclasses import replace
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise
from runs import ROOT, run_command, write_config

import mbv2det
from mbv2det.build import build_model, build_tasks
from mbv2det.data.dataset import collate
from mbv2det.data.scenes import CLASSES
from mbv2det.data.shapes import ShapesSpec, make_shapes
from mbv2det.deploy.check import output_differences
from mbv2det.deploy.export import Export, chosen_outputs, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.load import load_graph
from mbv2det.deploy.predictor import Predictor
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.gfl_lite import GFLLiteConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap, with_background
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.structures import Sample, SampleKey
from mbv2det.tasks import TASKS
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (64, 96)
HEADS = {
    "detector": {"detection": SSDLiteConfig()},
    "segmenter": {"segmentation": DeepLabV3Config(channels=16)},
    "light segmenter": {"segmentation": DeepLabV3LightConfig(channels=16)},
    "joint": {
        "detection": SSDLiteConfig(class_loss="focal"),
        "segmentation": LRASPPConfig(),
    },
    "classifier": {"classification": ClassifierConfig()},
    "points": {"detection": GFLLiteConfig(channels=32)},
    "joint points": {
        "detection": GFLLiteConfig(channels=32),
        "segmentation": DeepLabV3Config(channels=16),
    },
}
LABEL_MAPS = {
    "detection": LabelMap(("cat", "dog", "cow"), (7, 90, 3)),
    "segmentation": LabelMap.of_masks(("background", "tree", "road")),
    "classification": LabelMap.of_masks([f"class {k}" for k in range(7)]),
}
BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}
CASES = [
    ("detector", "onnx", "onnxruntime"),
    ("segmenter", "onnx", "onnxruntime"),
    ("classifier", "onnx", "onnxruntime"),
    ("joint", "onnx", "onnxruntime"),
    ("joint", "onnx", "openvino"),
    ("joint", "openvino", "openvino"),
    ("joint", "pt2", "torch"),
    ("points", "onnx", "onnxruntime"),
    ("points", "openvino", "openvino"),
    ("points", "pt2", "torch"),
    ("joint points", "onnx", "onnxruntime"),
]


def info_of(model, **settings):
    heads = HEADS[model]
    return WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=0.1, padding="same", norm_eps=1e-3), heads),
        PreprocessSpec(SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        {task: LABEL_MAPS[task] for task in heads},
        **settings,
    )


def network_of(info):
    return randomise(build_model(info.model, info.preprocess, info.label_maps))


def pixels(height=50, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def batch(count, seed=0):
    images = [pixels(*SIZE, seed + i) for i in range(count)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def needs(*packages):
    for package in packages:
        pytest.importorskip(package)


def needs_backend(backend):
    if backend != "torch":
        needs(backend)


@pytest.fixture(autouse=True, scope="module")
def untyped():
    """Turns the checks of shapes off: they compare sizes, and torch.export would fix those."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model once for all tests; returns its file, its network and its header."""
    files = {}

    def make(model, format, *choices, precision="fp32"):
        needs(*FORMATS[format].packages)
        key = (model, format, choices, precision)
        if key not in files:
            info = info_of(model)
            path = tmp_path_factory.mktemp("exported") / f"model{FORMATS[format].suffix}"
            tasks = build_tasks(info.model, info.eval, info.label_maps)
            names = [task.output_option.name for task in tasks if task.output_option]
            network = network_of(info)
            options = dict(zip(names, choices, strict=bool(choices)))
            export(Export(network, info, FORMATS[format], precision, options), path)
            files[key] = path, network, info
        return files[key]

    return make


def assert_same_detections(got, expected, atol=1e-3):
    assert len(got) == len(expected) > 0
    torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=atol)
    # Equal scores may stand in any order, so each box is compared with the nearest of its class.
    for box, label in zip(expected.boxes, expected.labels, strict=True):
        same = got.boxes[got.labels == label]
        assert (same - box).abs().amax(dim=1).min() < atol


@pytest.mark.parametrize(("model", "format", "backend"), CASES)
def test_a_file_with_raw_outputs_computes_what_pytorch_does(model, format, backend, exported):
    choices = {"detector": ["none"], "segmenter": ["logits"], "joint": ["none", "logits"]}
    choices |= {"points": ["none"], "joint points": ["none", "logits"]}
    needs_backend(backend)
    path, network, _ = exported(model, format, *choices.get(model, []))
    for count in (1, 3):
        differences = output_differences(
            network, load_graph(path, backend, threads=1), batch(count).split(1)
        )
        # Other products and sums in float32, of boxes of up to 100 pixels.
        assert max(differences.values()) < 1e-4, differences


@pytest.mark.parametrize(("model", "format", "backend"), CASES)
def test_a_file_predicts_what_pytorch_does(model, format, backend, exported):
    needs_backend(backend)
    path, network, info = exported(model, format)
    predictor = mbv2det.load(path, backend, threads=1)
    assert predictor.runtime.name == backend
    reference = Predictor.of_model(network, info, "cpu")
    # At the input's own size: elsewhere the labels of pixels come from the nearest pixel.
    images = [pixels(*SIZE, seed) for seed in range(3)]
    for got, expected in zip(predictor(images), reference(images), strict=True):
        if expected.detection is not None:
            assert_same_detections(got.detection, expected.detection)
        if expected.segmentation is not None:
            assert torch.equal(got.segmentation.labels, expected.segmentation.labels)
        if expected.classification is not None:
            assert torch.equal(got.classification.labels, expected.classification.labels)


def test_raw_outputs_give_pytorchs_predictions_at_any_size(exported):
    needs("onnxruntime")
    path, network, info = exported("joint", "onnx", "none", "logits")
    predictor, reference = mbv2det.load(path), Predictor.of_model(network, info, "cpu")
    images = [pixels(50, 70), pixels(130, 61, 1)]
    for got, expected in zip(predictor(images), reference(images), strict=True):
        assert_same_detections(got.detection, expected.detection)
        assert torch.equal(got.segmentation.labels, expected.segmentation.labels)


def test_detections_are_in_pixels_of_the_original(exported):
    needs("onnxruntime")
    path, network, info = exported("detector", "onnx")
    image = pixels(130, 61)
    (got,), (expected,) = mbv2det.load(path)([image]), Predictor.of_model(network, info)([image])
    assert_same_detections(got.detection, expected.detection)
    assert got.detection.boxes[:, 2].max() <= 61
    assert 96 < got.detection.boxes[:, 3].max() <= 130


def test_labels_of_another_size_are_those_of_the_nearest_pixel(exported):
    needs("onnxruntime")
    path, _, _ = exported("segmenter", "onnx")
    predictor, image = mbv2det.load(path), pixels(128, 192)
    sample = predictor.preprocessor(Sample(SampleKey(0, 0), image, Frame((128, 192))))
    small = predictor.runtime(collate([sample]).images)["classes"][0]
    labels = predictor.predict(image).segmentation.labels
    assert torch.equal(labels, small.repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
def test_images_without_detections_give_empty_results(format, tmp_path):
    needs(*FORMATS[format].packages)
    needs_backend(BACKENDS[format])
    info = info_of("detector", eval=EvalConfig(score_threshold=1.0))
    path = tmp_path / f"model{FORMATS[format].suffix}"
    export(Export(network_of(info), info, FORMATS[format]), path)
    predictor = mbv2det.load(path, threads=1)
    outputs = predictor.runtime(batch(2))
    assert outputs["count"].tolist() == [0, 0]
    assert not outputs["boxes"].any()
    assert (outputs["labels"] == -1).all()
    predictions = predictor([pixels(), pixels(9, 9)])
    assert [tuple(p.detection.boxes.shape) for p in predictions] == [(0, 4), (0, 4)]


def test_a_file_carries_all_of_the_header(exported):
    for format, backend in BACKENDS.items():
        needs_backend(backend)
        path, _, info = exported("joint", format)
        predictor = mbv2det.load(path)
        assert predictor.info == info
        graph = predictor.runtime.graph
        assert graph.format == format
        assert graph.choices == {"detection": "inside", "segmentation": "classes"}
        assert graph.outputs == ("boxes", "scores", "labels", "count", "classes")
        assert {"mbv2det", "torch"} <= set(graph.versions)


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_file_names_no_path_of_the_machine_that_wrote_it(format, exported):
    path, _, _ = exported("joint", format)
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


def test_the_fixed_number_of_results_may_exceed_the_candidates(tmp_path):
    needs("onnx", "onnxscript", "onnxruntime")
    info = info_of("detector", eval=EvalConfig(max_detections=1000, score_threshold=0.3))
    network, path = network_of(info), tmp_path / "model.onnx"
    export(Export(network, info, FORMATS["onnx"]), path)
    (got,), (expected,) = (
        mbv2det.load(path)([pixels()]),
        Predictor.of_model(network, info)([pixels()]),
    )
    assert_same_detections(got.detection, expected.detection)


@pytest.mark.parametrize(
    ("format", "precision"),
    [(f, p) for f in BACKENDS for p in FORMATS[f].precisions if p in ("fp16", "bf16")],
)
def test_lower_precisions_stay_close(format, precision, exported):
    path, network, _ = exported("joint", format, "none", "logits", precision=precision)
    needs_backend(BACKENDS[format])
    runtime = load_graph(path, threads=1)
    differences = output_differences(network, runtime, batch(2).split(1))
    # Scores of up to 1: float16 has 11 bits of mantissa and bfloat16 8, through 60 layers.
    assert 0 < differences["scores"] < {"fp16": 5e-3, "bf16": 5e-2}[precision]


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    info = info_of("segmenter")
    with pytest.raises(ConfigError, match=r"the package onnx,.*pip install 'mbv2det\[onnx\]'"):
        export(Export(network_of(info), info, FORMATS["onnx"]), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"the package onnxruntime.*'mbv2det\[onnx\]'"):
        mbv2det.load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        (
            {"precision": "bf16"},
            "model.onnx",
            "expected fp32 or fp16 or int8 for onnx",
        ),
        ({}, "model.pt2", r"--out: expected a name that ends in \.onnx, got"),
        ({"options": {"nms": "outside"}}, "model.onnx", "--nms: expected inside or none for onnx"),
        ({"options": {"segmentation": "logits"}}, "model.onnx", "--segmentation: expected weights"),
    ],
)
def test_what_cannot_be_exported_is_refused(changes, name, message, tmp_path):
    needs("onnx", "onnxscript")
    info = info_of("detector")
    request = Export(network_of(info), info, FORMATS["onnx"])
    with pytest.raises(ConfigError, match=message):
        export(replace(request, **changes), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_format_without_nms_gets_boxes_before_it(monkeypatch):
    monkeypatch.setattr(FORMATS["onnx"].__class__, "operators", ())
    info = info_of("joint")
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    assert chosen_outputs(tasks, FORMATS["onnx"], {})["detection"] == "none"
    with pytest.raises(ConfigError, match="--nms: expected none for onnx, got inside"):
        chosen_outputs(tasks, FORMATS["onnx"], {"nms": "inside"})


def test_no_two_tasks_share_the_name_of_an_output():
    names = [
        set(task(head, LABEL_MAPS[name], EvalConfig()).output_layer(choice).names)
        for name, task in TASKS.items()
        for head in [task.head_kinds[0]()]
        for choice in list(task.output_option.choices if task.output_option else [""])[:1]
    ]
    assert len(set().union(*names)) == sum(map(len, names))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "openvino"}, "expected a file that openvino runs, got weights"),
        ({"device": "quantum"}, "device: expected auto, or one of this machine's devices"),
    ],
)
def test_weights_run_in_pytorch_only(arguments, message, tmp_path):
    info = info_of("segmenter")
    save_weights(tmp_path / "w.safetensors", network_of(info).state_dict(), info)
    with pytest.raises(ConfigError, match=message):
        mbv2det.load(tmp_path / "w.safetensors", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "torch"}, "backend: expected onnxruntime or openvino for a .onnx file"),
        ({"device": "quantum"}, "device: expected auto, or one of this machine's devices"),
        ({"dtype": "bfloat16"}, "dtype and compile are for weights files"),
    ],
)
def test_an_exported_file_refuses_what_its_backend_cannot_do(arguments, message, exported):
    needs("onnxruntime")
    path, _, _ = exported("joint", "onnx")
    with pytest.raises(ConfigError, match=message):
        mbv2det.load(path, **arguments)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt2"])
def test_damaged_and_missing_files_are_refused_in_one_line(name, tmp_path):
    needs("onnxruntime", "openvino")
    with pytest.raises(ConfigError, match=f"{name}: expected a file, found none"):
        mbv2det.load(tmp_path / name)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=f"{name}: .* cannot read it"):
        mbv2det.load(tmp_path / name)


def test_the_command_exports_compares_and_the_file_evaluates_like_its_weights(tmp_path):
    needs("onnx", "onnxscript", "onnxruntime")
    heads = "detection: {name: ssdlite}, segmentation: {name: deeplabv3, channels: 16}"
    config = write_config(tmp_path, num_train=2, num_val=3, heads=heads)
    info = replace(
        info_of("joint"),
        label_maps={
            "detection": LabelMap.of_masks(CLASSES),
            "segmentation": LabelMap.of_masks(with_background(CLASSES)),
        },
    )
    weights, out = tmp_path / "w.safetensors", tmp_path / "model.onnx"
    save_weights(weights, network_of(info).state_dict(), info)
    done = run_command(
        "export", config, "--weights", weights, "--format", "onnx", "--out", out,
        "--segmentation", "logits", "--eval.score_threshold=0.05",
    )  # fmt: skip
    assert "AP" in done.stdout
    report = json.loads((tmp_path / "model.check.json").read_text())
    assert report["outputs"]["logits"] < 1e-4
    assert report["outputs"]["without partner"] == 0
    assert report["images"] == 3
    assert report["source"] == "w.safetensors"
    assert len(report["sha256"]) == 64
    for row in report["metrics"].values():
        assert row["exported"] == pytest.approx(row["torch"], abs=1e-4)
    assert mbv2det.load(out).info.eval.score_threshold == 0.05
    run_command("eval", config, "--weights", out, "--out", tmp_path / "exported.json")
    run_command(
        "eval", config, "--weights", weights, "--out", tmp_path / "weights.json",
        "--eval.score_threshold=0.05",
    )  # fmt: skip
    first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("exported", "weights")
    )
    assert first["backend"] == "onnxruntime"
    assert first["segmentation"]["mIoU"] == pytest.approx(second["segmentation"]["mIoU"], abs=1e-4)
    assert first["detection"]["AP"] == pytest.approx(second["detection"]["AP"], abs=1e-4)
    done = run_command("eval", config, "--weights", out, "--eval.score_threshold=0.1", check=False)
    assert "--eval.score_threshold: " in done.stderr
    assert "keeps what it was exported with" in done.stderr
    run_command("predict", "--weights", out, tmp_path / "shapes/val", "--out", tmp_path / "out")
    assert len(list((tmp_path / "out/masks").iterdir())) == 3


@pytest.mark.parametrize(
    ("changed", "keeps"),
    [((), True), (("--data.image_size=[64,64]", "--eval.nms_iou=0.3"), False)],
)
def test_a_file_has_the_metrics_of_its_own_settings_alone(tmp_path, changed, keeps):
    config = write_config(tmp_path, num_train=1, num_val=2)
    metrics = {"detection": {"AP": 0.5}, "images": 2}
    label_maps = {"detection": LabelMap.of_masks(CLASSES)}
    info = replace(info_of("detector"), metrics=metrics, label_maps=label_maps)
    weights, out = tmp_path / "w.safetensors", tmp_path / "model.pt2"
    save_weights(weights, network_of(info).state_dict(), info)
    done = run_command(
        "export", config, "--weights", weights, "--format=pt2", "--out", out, *changed
    )
    assert mbv2det.load(out).info.metrics == (metrics if keeps else {})
    assert ("metrics: those of the weights are of other settings" in done.stderr) != keeps


@pytest.mark.parametrize("model", ["detector", "classifier"])
def test_weights_of_any_classes_are_compared_without_a_configuration(model, tmp_path, monkeypatch):
    needs("onnx", "onnxscript", "onnxruntime")
    monkeypatch.chdir(tmp_path)
    spec = ShapesSpec(num_train=1, num_val=2, size=(96, 128))
    small = partial(make_shapes, spec=spec, show_progress=False)
    monkeypatch.setattr("mbv2det.data.splits.ensure_shapes", small)
    info = info_of(model)
    save_weights(tmp_path / "w.safetensors", network_of(info).state_dict(), info)
    done = run_command("export", "--weights=w.safetensors", "--format=onnx", "--out=model.onnx")
    assert "metrics: not compared" in done.stderr
    assert "configured" not in done.stderr  # nobody configured anything
    report = json.loads((tmp_path / "model.check.json").read_text())
    assert max(report["outputs"].values()) < 1e-3
    assert "metrics" not in report
