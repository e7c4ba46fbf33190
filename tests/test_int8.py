"""int8 files: what is quantised and what is not, and the search for what stays in float32."""

import json
import sys
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from networks import randomise
from runs import run_command, write_config

import mbv2det
from mbv2det.build import build_model, build_tasks
from mbv2det.cli.int8 import export_int8
from mbv2det.data.scenes import CLASSES
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.load import load_graph
from mbv2det.deploy.quantization.quantizer import Calibration
from mbv2det.deploy.quantization.search import Step, search_float_parts
from mbv2det.deploy.quantization.sensitivity import parts_of, signal_to_noise
from mbv2det.errors import ConfigError
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap, with_background
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (64, 96)
INT8_FORMATS = [name for name, kind in FORMATS.items() if kind.quantizer is not None]
HEADS = {"detection": SSDLiteConfig(), "segmentation": LRASPPConfig()}
LABEL_MAPS = {
    "detection": LabelMap.of_masks(CLASSES),
    "segmentation": LabelMap.of_masks(with_background(CLASSES)),
}
FLOAT_PARTS = ("backbone.layers.layer_4", "heads.segmentation.high_classifier")


def info_of(*tasks, width_mult=0.1):
    return WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=width_mult), {task: HEADS[task] for task in tasks}),
        PreprocessSpec(SIZE),
        {task: LABEL_MAPS[task] for task in tasks},
    )


def network_of(info):
    return randomise(build_model(info.model, info.preprocess, info.label_maps))


def images(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, *SIZE), np.uint8)
    return torch.from_numpy(pixels)


def in_float(node):
    module = node.split("/")[0]
    return any(f"{module}.".startswith(f"model.{part}.") for part in FLOAT_PARTS)


def needs(format):
    kind = FORMATS[format]
    for package in (*kind.packages, *kind.quantizer.packages):
        pytest.importorskip(package, reason=f"int8 of {format} needs {package}")


@pytest.fixture(autouse=True, scope="module")
def untyped():
    """Turns the checks of shapes off: they compare sizes, and torch.export would fix those."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# NNCF corrects one bias after the other, which takes long for many layers.
MODELS = {"onnx": ("detection", "segmentation"), "openvino": ("segmentation",)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns the int8 file of a model with two parts in float32, its network and its header."""
    files = {}

    def make(format):
        needs(format)
        if format not in files:
            info = info_of(*MODELS[format])
            path = tmp_path_factory.mktemp("int8") / f"model{FORMATS[format].suffix}"
            network = network_of(info)
            options = {"segmentation": "logits"}
            calibration = Calibration(images(4), FLOAT_PARTS)
            request = Export(network, info, FORMATS[format], "int8", options)
            export(replace(request, calibration=calibration), path)
            files[format] = path, network, info
        return files[format]

    return make


@pytest.mark.parametrize("format", INT8_FORMATS)
def test_an_int8_file_computes_nearly_what_pytorch_does(format, exported):
    path, network, info = exported(format)
    runtime = load_graph(path, threads=1)
    assert runtime.graph.precision == "int8"
    assert runtime.graph.float_parts == FLOAT_PARTS
    assert runtime.info == info
    batch = images(3, seed=1)
    got, outputs = runtime(batch), network(batch)
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    expected = {task.name: task.raw_tensor(outputs[task.name]).detach() for task in tasks}
    noise = (got["logits"] - expected["segmentation"]).square().mean().sqrt()
    assert 0 < noise < 0.1 * expected["segmentation"].std()
    assert len(mbv2det.load(path, threads=1)([np.zeros((50, 70, 3), np.uint8)])) == 1


def test_in_onnx_the_backbone_and_the_heads_are_quantised_and_nothing_else(exported):
    path, _, _ = exported("onnx")
    import onnx

    graph = onnx.load(path).graph
    producer = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:
        dequantised = producer.get(node.input[1])
        assert (dequantised is None) == in_float(node.name), node.name
        if not in_float(node.name):
            weight, scale = (weights[name] for name in dequantised.input[:2])
            assert weight.data_type == onnx.TensorProto.INT8
            assert list(scale.dims) == [weight.dims[0]]  # one for each output channel
    assert sum(producer.get(node.input[1]) is None for node in convolutions) == 3 + 1
    quantised = [producer.get(n.input[0]) for n in graph.node if n.op_type == "QuantizeLinear"]
    sources = {node.name.split("/")[0].split(".")[0] for node in quantised if node is not None}
    assert sources == {"model"}  # and not `layers`, the output layers
    for node in graph.node:
        if node.name.startswith("model.normalize"):
            producers = [producer[name].op_type for name in node.input if name in producer]
            assert "DequantizeLinear" not in producers


def test_in_openvino_the_backbone_and_the_heads_are_quantised_and_nothing_else(exported):
    path, _, _ = exported("openvino")
    import openvino

    in_float32, quantised = 0, 0
    for op in openvino.Core().read_model(path).get_ops():
        name = op.get_friendly_name()
        if op.get_type_name() == "FakeQuantize":
            consumers = [i.get_node().get_friendly_name() for i in op.output(0).get_target_inputs()]
            assert all(c.startswith(("model.backbone.", "model.heads.")) for c in consumers)
            assert not any(in_float(consumer) for consumer in consumers)
            quantised += 1
        if "Convolution" in op.get_type_name() and in_float(name):
            assert op.input_value(1).get_node().get_type_name() != "FakeQuantize"
            in_float32 += 1
    assert in_float32 == 3 + 1
    assert quantised > 30


def test_the_parts_of_a_network_are_layers_and_blocks():
    info = info_of("detection", "segmentation")
    parts = parts_of(network_of(info))
    assert {"backbone.layers.layer_1", "backbone.layers.layer_19"} <= set(parts)
    assert {f"heads.detection.extras.{i}" for i in range(4)} <= set(parts)
    heads = [name for name in parts if name.startswith("heads.segmentation.")]
    assert heads
    layers = [
        layer
        for part in parts.values()
        for layer in part.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    every = [m for m in network_of(info).modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(layers) == len(every)  # each layer is in one part


def test_the_part_whose_input_has_the_widest_range_is_the_most_sensitive():
    info = info_of("segmentation", width_mult=0.35)  # here `layer_2` has no shortcut
    network = network_of(info)
    # One channel between two layers becomes 1024 times larger; the outputs stay the same.
    norm = network.backbone.layers["layer_2"].project.norm
    norm.weight.data[0] *= 1024
    norm.bias.data[0] *= 1024
    network.backbone.layers["layer_3"].expand.conv.weight.data[:, 0] /= 1024
    torch.testing.assert_close(
        network(images(2))["segmentation"].logits,
        network_of(info)(images(2))["segmentation"].logits,
    )
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ratios = signal_to_noise(network, tasks, images(4))
    assert list(ratios) == list(parts_of(network))
    assert min(ratios, key=ratios.get) == "backbone.layers.layer_3"
    assert ratios["backbone.layers.layer_3"] < sorted(ratios.values())[1] - 10
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


PARTS = tuple("abcdefghijkl")


@pytest.mark.parametrize("needed", range(len(PARTS)))
def test_the_search_finds_the_fewest_parts(needed):
    ranked, measured = [], []

    def ranking():
        ranked.append(True)
        return PARTS

    def drop_of(float_parts):
        measured.append(float_parts)
        return 0.005 if len(float_parts) >= needed else 0.05

    search = search_float_parts(ranking, drop_of, 0.01)
    assert search.found == Step(PARTS[:needed], 0.005)
    assert [step.float_parts for step in search.steps] == measured
    assert len(measured) <= 5  # 1 + log2(12)
    assert len(ranked) == (needed > 0)  # it costs time, so only where it is needed


def test_the_search_returns_what_it_measured_even_if_the_drop_does_not_fall_steadily():
    drops = {0: 0.5, 6: 0.001, 3: 0.2, 4: 0.009, 5: 0.3}
    search = search_float_parts(lambda: PARTS, lambda parts: drops[len(parts)], 0.01)
    assert search.found == Step(PARTS[:4], 0.009)


def test_the_search_says_that_nothing_holds():
    search = search_float_parts(lambda: PARTS, lambda _: 0.02, 0.01)
    assert search.found is None
    assert search.steps[-1].float_parts == PARTS[:-1]


def test_parts_stay_in_float_until_the_budget_holds(tmp_path):
    needs("onnx")
    info, path, enough = info_of("segmentation"), tmp_path / "model.onnx", 3

    def drop_of(file):
        count = len(load_graph(file).graph.float_parts)
        return 0.0 if count >= enough else 0.5

    request = Export(network_of(info), info, FORMATS["onnx"], "int8")
    made = export_int8(request, path, images(4), max_drop=0.01, drop_of=drop_of)
    assert made.report["max_drop"] == 0.01
    assert len(made.graph.float_parts) == enough
    assert load_graph(path).graph.float_parts == made.graph.float_parts
    assert {len(step["float_parts"]) for step in made.report["steps"]} >= {0, enough - 1, enough}
    assert set(made.report["network_ms"]) == {"fp32", "int8"}
    assert made.report["bytes"]["int8"] > 0


def test_int8_without_calibration_images_is_refused(tmp_path):
    needs("onnx")
    info = info_of("segmentation")
    with pytest.raises(ConfigError, match="--precision int8: expected calibration images"):
        export(Export(network_of(info), info, FORMATS["onnx"], "int8"), tmp_path / "model.onnx")


def test_a_format_without_int8_is_refused(tmp_path):
    info = info_of("segmentation")
    calibration = Calibration(images(1))
    request = Export(network_of(info), info, FORMATS["pt2"], "int8", calibration=calibration)
    with pytest.raises(ConfigError, match="--precision: expected fp32 or fp16 or bf16 for pt2"):
        export(request, tmp_path / "model.pt2")


def test_a_missing_quantiser_is_named_with_its_extra(tmp_path, monkeypatch):
    needs("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    info = info_of("segmentation")
    calibration = Calibration(images(1))
    request = Export(network_of(info), info, FORMATS["openvino"], "int8", calibration=calibration)
    with pytest.raises(ConfigError, match=r"the package nncf,.*pip install 'mbv2det\[nncf\]'"):
        export(request, tmp_path / "model.xml")


def test_a_budget_without_a_metric_is_refused(tmp_path):
    info = info_of("segmentation")
    request = Export(network_of(info), info, FORMATS["onnx"], "int8")
    with pytest.raises(ConfigError, match="--max-drop: expected a CONFIG with annotations"):
        export_int8(request, tmp_path / "model.onnx", images(1), max_drop=0.01)


def test_the_command_quantises_compares_and_the_file_evaluates(tmp_path):
    needs("onnx")
    config = write_config(tmp_path, num_train=3, num_val=3, heads="segmentation: {name: lraspp}")
    info = replace(info_of("segmentation"), metrics={"segmentation": {"mIoU": 0.5}, "images": 3})
    weights, out = tmp_path / "w.safetensors", tmp_path / "model.onnx"
    save_weights(weights, network_of(info).state_dict(), info)
    command = ("export", config, "--weights", weights, "--format", "onnx", "--out", out)
    refused = run_command(*command, "--max-drop=0.01", check=False)
    assert refused.returncode == 2
    assert "--max-drop: expected --precision int8, got fp32" in refused.stderr
    refused = run_command(*command, "--precision=int8", "--calibration-images=0", check=False)
    assert "--calibration-images: expected at least 1, got 0" in refused.stderr
    done = run_command(*command, "--precision=int8", "--calibration-images=2", "--max-drop=1")
    assert "calibration: 2 images of data.train" in done.stderr
    assert "no part left in float32" in done.stderr
    assert "metrics: those of the weights are of float32" in done.stderr
    assert mbv2det.load(out).info.metrics == {}
    report = json.loads((tmp_path / "model.check.json").read_text())
    assert report["precision"] == "int8"
    assert report["int8"]["calibration_images"] == 2
    assert len(report["int8"]["steps"]) == 1
    assert set(report["metrics"]) == {"mIoU"}
    run_command("eval", config, "--weights", out, "--out", tmp_path / "exported.json")
    measured = json.loads((tmp_path / "exported.json").read_text())
    exported = report["metrics"]["mIoU"]["exported"]
    assert measured["segmentation"]["mIoU"] == pytest.approx(exported, abs=1e-6)


@pytest.mark.slow
def test_the_command_ends_with_a_statement_where_no_file_holds_the_budget(tmp_path, monkeypatch):
    needs("onnx")
    monkeypatch.setattr("mbv2det.cli.exporting.Comparison.drop", lambda *_: 0.3)
    config = write_config(tmp_path, num_train=1, num_val=1, heads="segmentation: {name: lraspp}")
    info = info_of("segmentation")
    weights, out = tmp_path / "w.safetensors", tmp_path / "model.onnx"
    save_weights(weights, network_of(info).state_dict(), info)
    done = run_command(
        "export", config, "--weights", weights, "--format", "onnx", "--out", out,
        "--precision=int8", "--max-drop=0.1", check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no file written: the smallest drop found is 0.3000, above --max-drop 0.1" in done.stderr
    assert not out.exists()
    report = json.loads((tmp_path / "model.check.json").read_text())
    assert report["file"] is None
    assert len(report["int8"]["steps"]) > 1
    assert "bytes" not in report["int8"]
