"""TensorFlow's variables, written here under its names, arrive in the right tensors.

Source of names and layouts: TensorFlow research slim/nets/mobilenet, object_detection, deeplab.
"""

import math
import sys
import tarfile
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from networks import randomise
from runs import run_command
from tensorflow_files import write_checkpoint, write_frozen_graph, write_release
from tensorflow_network import outputs_in_tensorflow
from torchvision.ops import box_convert
from unsafe_pickle import RunsCode

from mbv2det.build import load_network
from mbv2det.detection.box_coder import BoxCoder
from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import VOC_NAMES
from mbv2det.model_config import BackboneConfig, EvalConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.source import Mismatch, MismatchError
from mbv2det.weights.tensorflow import read_tensorflow

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 0.35
BLOCKS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
EXTRAS = (512, 256, 256, 128)
ANCHORS = (3, 6, 6, 6, 6, 6)
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


# The writer


def rounded(channels):
    """Rounds to a multiple of 8, but down by no more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class Variables(dict):
    """Arrays by name, in the order in which TensorFlow creates them; all numbers are distinct."""

    def add(self, name, *shape):
        start = sum(array.size for array in self.values())
        values = np.arange(start, start + np.prod(shape), dtype=np.float32)
        self[name] = values.reshape(shape)

    def norm(self, scope, channels):
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            self.add(f"{scope}/BatchNorm/{name}", channels)

    def conv(self, scope, inputs, outputs, size=1):
        self.add(f"{scope}/weights", size, size, inputs, outputs)
        self.norm(scope, outputs)
        return outputs

    def depthwise(self, scope, channels):
        self.add(f"{scope}/depthwise_weights", 3, 3, channels, 1)
        self.norm(scope, channels)

    def logits(self, scope, inputs, outputs):
        self.add(f"{scope}/weights", 1, 1, inputs, outputs)
        self.add(f"{scope}/biases", outputs)

    def layers(self, prefix, last=1280):
        """Adds the backbone; returns its channels at layer 15's expansion and at the end."""
        channels = self.conv(f"{prefix}/Conv", 3, rounded(32 * WIDTH), 3)
        features = []
        for number, outputs in enumerate(BLOCKS):
            scope = f"{prefix}/expanded_conv" + (f"_{number}" if number else "")
            inside = channels
            if number:
                inside = self.conv(f"{scope}/expand", channels, 6 * channels)
            self.depthwise(f"{scope}/depthwise", inside)
            channels = self.conv(f"{scope}/project", inside, rounded(outputs * WIDTH))
            if number == 13:
                features.append(inside)
        if last:
            channels = self.conv(f"{prefix}/Conv_1", channels, last)
        return [*features, channels]


def classifier(classes=5):
    variables = Variables()
    _, channels = variables.layers("MobilenetV2")
    if classes:
        variables.logits("MobilenetV2/Logits/Conv2d_1c_1x1", channels, classes)
    return variables


def deeplab(aspp="pool", labels=21):
    variables = Variables()
    _, channels = variables.layers("MobilenetV2", last=None)
    variables.conv("image_pooling", channels, 256)
    variables.conv("aspp0", channels, 256)
    for number in (1, 2, 3) if aspp != "pool" else ():
        if aspp == "full":
            variables.conv(f"aspp{number}", channels, 256, 3)
        else:
            variables.depthwise(f"aspp{number}_depthwise", channels)
            variables.conv(f"aspp{number}_pointwise", channels, 256)
    variables.conv("concat_projection", 256 * (2 if aspp == "pool" else 5), 256)
    variables.logits("logits/semantic", 256, labels)
    return variables


def ssdlite(slots=21, last=448):
    variables = Variables()
    prefix = "FeatureExtractor/MobilenetV2"
    levels = variables.layers(prefix, last)
    for number, outputs in enumerate(EXTRAS):
        depth = int(outputs * WIDTH)
        inside = depth // 2
        variables.conv(f"{prefix}/layer_19_1_Conv2d_{number + 2}_1x1_{inside}", levels[-1], inside)
        scope = f"{prefix}/layer_19_2_Conv2d_{number + 2}_3x3_s2_{depth}"
        variables.depthwise(f"{scope}_depthwise", inside)
        levels.append(variables.conv(scope, inside, depth))
    for kind, outputs in (("ClassPredictor", slots), ("BoxEncodingPredictor", 4)):
        for number, (channels, anchors) in enumerate(zip(levels, ANCHORS, strict=True)):
            scope = f"BoxPredictor_{number}/{kind}"
            variables.depthwise(f"{scope}_depthwise", channels)
            variables.logits(scope, channels, anchors * outputs)
    return variables


NETWORKS = {
    "classifier": classifier,
    "deeplab": deeplab,
    "deeplab full": lambda: deeplab("full"),
    "deeplab separable": lambda: deeplab("separable"),
    "ssdlite 21": ssdlite,
    "ssdlite 7": lambda: ssdlite(7),
    "ssdlite 91": lambda: ssdlite(91, last=1280),
}


# Reading


def written(variables, folder, name="weights.npz"):
    np.savez(folder / name, **variables)
    return str(folder / name)


def imported(weights):
    return load_network(weights)[0].eval()


def read(variables, folder):
    return read_tensorflow(written(variables, folder))


def by_hand(name, array):
    """Returns an array in PyTorch's layout."""
    if array.ndim < 4:
        return array
    kernel = np.einsum("yxcm->cmyx" if name.endswith("depthwise_weights") else "yxio->oiyx", array)
    return kernel[:, :, 0, 0] if "Logits/" in name else kernel


def rows_by_hand(name, array, slots):
    """Returns a predictor's rows in our order: dx before dy for boxes, COCO's 80 of 91 classes."""
    if "/BoxEncodingPredictor/" in name:
        y, x, height, width = (array[k::4] for k in range(4))
        return np.stack([x, y, width, height], axis=1).reshape(array.shape)
    if "/ClassPredictor/" in name and slots == 91:
        kept = np.isin(np.arange(len(array)) % 91, COCO_GAPS, invert=True)
        return array[kept]
    return array


@pytest.mark.parametrize("network", NETWORKS)
def test_variables_and_tensors_correspond_in_the_order_of_their_creation(network, tmp_path):
    variables = NETWORKS[network]()
    assert sum(array.size for array in variables.values()) < 2**24  # exact in float32
    state = imported(read(variables, tmp_path)).state_dict()
    ours = {name: tensor for name, tensor in state.items() if not name.endswith("batches_tracked")}
    slots = int(network.split()[1]) if "ssdlite" in network else 0
    for (name, tensor), (tf_name, array) in zip(ours.items(), variables.items(), strict=True):
        expected = rows_by_hand(tf_name, by_hand(tf_name, array), slots)
        np.testing.assert_array_equal(tensor.numpy(), expected, err_msg=f"{name} of {tf_name}")
    counters = [tensor for name, tensor in state.items() if name not in ours]
    assert all(int(counter) == 0 for counter in counters)


PAIRS = {
    "Conv/weights": "layer_1.conv.weight",
    "expanded_conv/depthwise/depthwise_weights": "layer_2.depthwise.conv.weight",
    "expanded_conv/project/BatchNorm/gamma": "layer_2.project.norm.weight",
    "expanded_conv_1/expand/BatchNorm/beta": "layer_3.expand.norm.bias",
    "expanded_conv_13/expand/BatchNorm/moving_mean": "layer_15.expand.norm.running_mean",
    "expanded_conv_16/project/BatchNorm/moving_variance": "layer_18.project.norm.running_var",
    "Conv_1/BatchNorm/gamma": "layer_19.norm.weight",
}


def test_layers_are_counted_as_tensorflow_counts_them(tmp_path):
    variables = classifier()
    state = imported(read(variables, tmp_path)).state_dict()
    for tf_name, name in PAIRS.items():
        expected = by_hand(tf_name, variables[f"MobilenetV2/{tf_name}"])
        np.testing.assert_array_equal(state[f"backbone.layers.{name}"].numpy(), expected)


# What the numbers mean


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (0, lambda boxes: boxes + boxes[:, [3]] * torch.tensor([0.0, 0.1, 0.0, 0.0])),
        (1, lambda boxes: boxes + boxes[:, [2]] * torch.tensor([0.1, 0.0, 0.0, 0.0])),
        (2, lambda boxes: boxes * torch.tensor([1.0, 1.0, 1.0, math.exp(0.2)])),
        (3, lambda boxes: boxes * torch.tensor([1.0, 1.0, math.exp(0.2), 1.0])),
    ],
    ids=["ty", "tx", "th", "tw"],
)
def test_each_box_row_moves_the_coordinate_that_tensorflow_names(row, change, tmp_path):
    variables = ssdlite()
    for name in variables:
        if "/BoxEncodingPredictor/" in name:
            variables[name] = np.zeros_like(variables[name])
            if name.endswith("biases"):
                variables[name][row::4] = 1
    model = imported(read(variables, tmp_path))
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))["detection"]
    boxes = BoxCoder().decode(outputs.deltas[0], outputs.anchors)
    anchors = box_convert(outputs.anchors, "xyxy", "cxcywh")
    # Moved by 1/10 of a side, or scaled by e^(1/5): TensorFlow's scale factors 10, 10, 5, 5.
    torch.testing.assert_close(
        box_convert(boxes, "xyxy", "cxcywh"), change(anchors), rtol=1e-5, atol=1e-4
    )


def test_the_91_slots_of_coco_keep_background_and_its_80_ids(tmp_path):
    variables = ssdlite(91)
    biases = "BoxPredictor_1/ClassPredictor/biases"
    anchor, slot = np.divmod(np.arange(6 * 91), 91)
    variables[biases] = (1000 * anchor + slot).astype(np.float32)
    weights = read(variables, tmp_path)
    label_map = weights.info.label_maps["detection"]
    ids = [i for i in range(1, 91) if i not in COCO_GAPS]
    assert label_map.ids == tuple(ids)
    name_of_id = dict(zip(label_map.ids, label_map.names, strict=True))
    assert [name_of_id[i] for i in (1, 13, 90)] == ["person", "stop sign", "toothbrush"]
    bias = imported(weights).heads["detection"].class_predictors[1][1].bias.detach()
    expected = 1000 * torch.arange(6)[:, None] + torch.tensor([0, *ids])
    assert torch.equal(bias.view(6, 81), expected.float())
    assert list(weights.notes) == ["left out the slots of 10 unused COCO ids"]


@pytest.mark.parametrize(
    ("slots", "names"), [(21, VOC_NAMES), (7, tuple(f"class {k}" for k in range(1, 7)))]
)
def test_other_detectors_have_vocs_names_or_numbers(slots, names, tmp_path):
    label_map = read(ssdlite(slots), tmp_path).info.label_maps["detection"]
    assert label_map.names == names
    assert label_map.ids == tuple(range(1, slots))


@pytest.mark.parametrize(
    ("labels", "first", "last"), [(21, "background", "tvmonitor"), (7, "class 0", "class 6")]
)
def test_segmenters_have_vocs_names_or_numbers(labels, first, last, tmp_path):
    label_map = read(deeplab(labels=labels), tmp_path).info.label_maps["segmentation"]
    assert (len(label_map), label_map.names[0], label_map.names[-1]) == (labels, first, last)
    assert label_map.ids == tuple(range(labels))


@pytest.mark.parametrize(
    ("classes", "first", "last"),
    [(1001, "background", "toilet tissue"), (1000, "tench", "toilet tissue"), (2, "class 0", None)],
)
def test_classifiers_have_imagenets_names_or_numbers(classes, first, last, tmp_path):
    label_map = read(classifier(classes), tmp_path).info.label_maps["classification"]
    assert (len(label_map), label_map.names[0]) == (classes, first)
    assert label_map.names[-1] == last or last is None


def test_settings_of_a_classifier(tmp_path):
    info = read(classifier(), tmp_path).info
    assert info.model.backbone == BackboneConfig(width_mult=WIDTH, padding="same", norm_eps=1e-3)
    assert info.model.tasks == ("classification",)
    assert info.preprocess == PreprocessSpec((224, 224), "stretch", (0.5,) * 3, (0.5,) * 3)


def test_a_backbone_alone_has_no_head(tmp_path):
    info = read(classifier(classes=0), tmp_path).info
    assert info.model.tasks == ()
    assert info.label_maps == {}


@pytest.mark.parametrize("aspp", ["pool", "full", "separable"])
def test_settings_of_a_segmenter(aspp, tmp_path):
    info = read(deeplab(aspp), tmp_path).info
    assert info.model.backbone == BackboneConfig(
        width_mult=WIDTH, padding="same", norm_eps=1e-3, output_stride=16
    )
    assert info.model.tasks == ("segmentation",)
    assert info.model.heads["segmentation"] == DeepLabV3Config(aspp=aspp, norm_eps=1e-5)
    assert info.preprocess == PreprocessSpec((513, 513), "fit", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(("last", "scaled"), [(448, True), (1280, False)])
def test_settings_of_a_detector(last, scaled, tmp_path):
    weights = read(ssdlite(last=last), tmp_path)
    info = weights.info
    assert info.model.backbone == BackboneConfig(
        width_mult=WIDTH, padding="same", norm_eps=1e-3, scale_last_layer=scaled
    )
    assert info.model.tasks == ("detection",)
    assert info.model.heads["detection"] == SSDLiteConfig(class_loss="sigmoid", norm_eps=1e-3)
    assert info.preprocess == PreprocessSpec((300, 300), "stretch", (0.5,) * 3, (0.5,) * 3)
    assert info.eval == EvalConfig(score_threshold=0.01, nms_iou=0.6, max_detections=100)
    assert imported(weights).heads["detection"].slots.background


def of_module(variables, scope, module):
    """A convolution with its norm or its bias; layouts as TensorFlow's documentation has them."""
    conv, norm = getattr(module, "convolution", module), getattr(module, "normalization", None)
    kernel = conv.weight.detach().numpy()
    if kernel.ndim == 2:
        kernel = kernel[:, :, None, None]
    grouped = kernel.shape[1] == 1
    name = "depthwise_weights" if grouped else "weights"
    variables[f"{scope}/{name}"] = np.einsum("cmyx->yxcm" if grouped else "oiyx->yxio", kernel)
    if conv.bias is not None:
        variables[f"{scope}/biases"] = conv.bias.detach().numpy()
    if norm is not None:
        for tf_name, tensor in (
            ("gamma", norm.weight), ("beta", norm.bias),
            ("moving_mean", norm.running_mean), ("moving_variance", norm.running_var),
        ):  # fmt: skip
            variables[f"{scope}/BatchNorm/{tf_name}"] = tensor.detach().numpy()


def of_transformers(network, scopes, last=True):
    """Returns the variables of a network of transformers; `scopes` are its head's modules."""
    variables = {}
    base = network.mobilenet_v2
    stem = base.conv_stem
    of_module(variables, "MobilenetV2/Conv", stem.first_conv)
    of_module(variables, "MobilenetV2/expanded_conv/depthwise", stem.conv_3x3)
    of_module(variables, "MobilenetV2/expanded_conv/project", stem.reduce_1x1)
    for number, block in enumerate(base.layer, start=1):
        scope = f"MobilenetV2/expanded_conv_{number}"
        of_module(variables, f"{scope}/expand", block.expand_1x1)
        of_module(variables, f"{scope}/depthwise", block.conv_3x3)
        of_module(variables, f"{scope}/project", block.reduce_1x1)
    if last:
        of_module(variables, "MobilenetV2/Conv_1", base.conv_1x1)
    for scope, module in scopes.items():
        of_module(variables, scope, module)
    return variables


def network_pair(kind, folder, **settings):
    """Returns a network of transformers, and ours with its weights as TensorFlow's variables."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)  # randomise leaves the classifier alone
    config = transformers.MobileNetV2Config(
        depth_multiplier=WIDTH, num_labels=7, tf_padding=True, **settings
    )
    network = randomise(getattr(transformers, f"MobileNetV2{kind}")(config), gain=2**0.5)
    if kind == "ForImageClassification":
        head = {"MobilenetV2/Logits/Conv2d_1c_1x1": network.classifier}
        torch.nn.init.normal_(network.classifier.weight, std=0.1)
        torch.nn.init.normal_(network.classifier.bias)
    else:
        head = {
            "image_pooling": network.segmentation_head.conv_pool,
            "aspp0": network.segmentation_head.conv_aspp,
            "concat_projection": network.segmentation_head.conv_projection,
            "logits/semantic": network.segmentation_head.classifier.convolution,
        }
    variables = of_transformers(network, head, last=kind == "ForImageClassification")
    return network, imported(read(variables, folder))


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("ForImageClassification", {}), ("ForSemanticSegmentation", {"output_stride": 16})],
)
def test_outputs_are_those_of_transformers(kind, settings, size, tmp_path):
    network, model = network_pair(kind, tmp_path, **settings)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        expected = network(images / 127.5 - 1.0).logits
        (outputs,) = model(images).values()
    logits = getattr(outputs, "logits", outputs)
    assert 0.1 < expected.std() < 10
    # Float32 sums of a thousand terms, of order one.
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width_mult", [0.25, 0.5, 1.0])
def test_mobilenet_v1_gives_the_logits_of_transformers(width_mult, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MobileNetV1Config(
        depth_multiplier=width_mult, num_labels=1001, tf_padding=True
    )
    reference = randomise(transformers.MobileNetV1ForImageClassification(config), gain=2**0.5)
    torch.nn.init.normal_(reference.classifier.weight, std=0.03)
    variables = {}
    of_module(variables, "MobilenetV1/Conv2d_0", reference.mobilenet_v1.conv_stem)
    for position, layer in enumerate(reference.mobilenet_v1.layer):
        part = ("depthwise", "pointwise")[position % 2]
        of_module(variables, f"MobilenetV1/Conv2d_{position // 2 + 1}_{part}", layer)
    of_module(variables, "MobilenetV1/Logits/Conv2d_1c_1x1", reference.classifier)
    weights = read(variables, tmp_path)
    model = imported(weights)
    assert weights.info.model.backbone == BackboneConfig(
        name="mobilenet_v1", width_mult=width_mult, padding="same", norm_eps=1e-3
    )
    assert weights.info.label_maps["classification"].names[0] == "background"
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 97), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        expected = reference(images / 127.5 - 1.0).logits
        logits = model(images)["classification"]
    assert 0.1 < expected.std() < 10
    # Float32 sums of a thousand terms, of order one.
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [classifier, deeplab, ssdlite, partial(ssdlite, slots=91)])
def test_outputs_are_those_of_tensorflow_itself(network, tmp_path):
    pytest.importorskip("tensorflow")
    variables, generator = network(), np.random.default_rng(0)
    for name, array in variables.items():
        fan_in = array.size / array.shape[-1] if array.ndim == 4 else 1
        values = generator.normal(size=array.shape) * (2 / fan_in) ** 0.5
        variables[name] = (abs(values) + 0.5 if "variance" in name else values).astype(np.float32)
    weights = read(variables, tmp_path)
    model, tasks = load_network(weights)
    model.eval()
    images = torch.randn(2, 3, 96, 129, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.backbone(images)
        (outputs,) = (
            task.raw_tensor(model.heads[task.name](features, (96, 129))) for task in tasks
        )
        expected = outputs_in_tensorflow(weights, variables, images)
    assert expected.std() > 0.1
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)  # float32


def test_the_import_says_that_tensorflows_network_cannot_be_run(tmp_path):
    path = written(classifier(), tmp_path)
    assert read_tensorflow(path).reference is None
    done = run_command("import_weights", "tf", path, "--out", tmp_path / "out.safetensors")
    assert "outputs are not compared, since the source's own network" in done.stderr
    assert (tmp_path / "out.safetensors").is_file()


# Variables that only training needs


def test_moving_averages_replace_their_variables(tmp_path):
    variables = classifier()
    expected = imported(read(variables, tmp_path)).state_dict()
    averaged = [name for name in variables if not name.rpartition("/")[2].startswith("moving_")]
    for name in averaged:
        variables[f"{name}/ExponentialMovingAverage"] = variables[name]
        variables[name] = np.zeros_like(variables[name])
    weights = read(variables, tmp_path)
    state = imported(weights).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    notes = [f"used {len(averaged)} moving averages in place of their variables"]
    assert list(weights.notes) == notes


@pytest.mark.parametrize("slot", ["RMSProp_1", "Momentum", "Adam"])
def test_variables_of_training_are_left_out_with_a_note(slot, tmp_path):
    variables = ssdlite(91)
    names = list(variables)
    for name in names[:10]:
        variables[f"{name}/{slot}"] = np.ones_like(variables[name])
    variables["global_step"] = np.array(200_000, np.int64)
    variables["beta1_power"] = np.array(0.5, np.float32)
    weights = read(variables, tmp_path)
    assert weights.tensors.keys() == set(names)
    assert list(weights.notes) == [
        "left out 12 variables that only training needs: optimiser, counters",
        "left out the slots of 10 unused COCO ids",
    ]
    imported(weights)


def test_weights_without_other_variables_have_no_notes(tmp_path):
    assert list(read(deeplab(), tmp_path).notes) == []


# Variables that do not match


BACKBONE_OF = {
    "classifier": "MobilenetV2", "deeplab full": "MobilenetV2",
    "ssdlite 21": "FeatureExtractor/MobilenetV2",
}  # fmt: skip


@pytest.mark.parametrize("network", BACKBONE_OF)
def test_all_variables_that_do_not_match_are_listed(network, tmp_path):
    variables, prefix = NETWORKS[network](), BACKBONE_OF[network]
    removed = f"{prefix}/expanded_conv_5/expand/BatchNorm/beta"
    renamed = f"{prefix}/expanded_conv_2/project/BatchNorm/beta"
    cut = f"{prefix}/Conv/BatchNorm/beta"
    del variables[removed]
    variables["other"] = variables.pop(renamed)
    variables["more"] = np.zeros((2, 3))
    variables[cut] = variables[cut][:3]
    with pytest.raises(MismatchError) as caught:
        imported(read(variables, tmp_path))
    name = "backbone.layers.layer_{}.norm.bias"
    assert set(caught.value.rows) == {
        Mismatch("missing", removed, f"(96,) for {name.format('7.expand')}", ""),
        Mismatch("missing", renamed, f"(8,) for {name.format('4.project')}", ""),
        Mismatch("unexpected", "other", "", "(8,)"),
        Mismatch("unexpected", "more", "", "(2, 3)"),
        Mismatch("wrong shape", cut, "(16,)", "(3,)"),
    }
    assert "2 missing, " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("classifier", "MobilenetV2/Logits/Conv2d_1c_1x1/biases"),
        ("deeplab full", "aspp2/weights"),
        ("deeplab separable", "aspp3_depthwise/depthwise_weights"),
        ("deeplab", "logits/semantic/biases"),
        ("ssdlite 21", "BoxPredictor_3/ClassPredictor/weights"),
        ("ssdlite 21", "BoxPredictor_0/ClassPredictor/biases"),
        ("ssdlite 21", "BoxPredictor_0/BoxEncodingPredictor/weights"),
        ("ssdlite 7", "BoxPredictor_5/BoxEncodingPredictor_depthwise/depthwise_weights"),
        ("ssdlite 21", "FeatureExtractor/MobilenetV2/layer_19_2_Conv2d_3_3x3_s2_89/weights"),
    ],
)
def test_a_heads_missing_variable_is_named(network, name, tmp_path):
    variables = NETWORKS[network]()
    del variables[name]
    message = refusal(written(variables, tmp_path))
    assert name in message


@pytest.mark.parametrize(
    "name",
    [
        "BoxPredictor_1/ClassPredictor/weights",
        "BoxPredictor_1/ClassPredictor/biases",
        "BoxPredictor_2/BoxEncodingPredictor/weights",
        "BoxPredictor_0/BoxEncodingPredictor/biases",
    ],
)
def test_a_predictor_with_rows_left_over_is_named(name, tmp_path):
    variables = ssdlite()
    variables[name] = variables[name][..., :-1]
    with pytest.raises(MismatchError, match=f"1 wrong shape; first: {name}"):
        imported(read(variables, tmp_path))


def test_another_network_is_refused(tmp_path):
    message = refusal(written({"resnet_v1_50/conv1/weights": np.zeros(1)}, tmp_path))
    assert "expected MobileNetV2, got no tensor 'MobilenetV2/Conv/weights'" in message
    assert "first name: 'resnet_v1_50/conv1/weights'" in message


# Files that cannot be read


def refusal(source):
    with pytest.raises(ConfigError) as caught:
        imported(read_tensorflow(str(source)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pickled_objects_are_refused_without_running_them(tmp_path):
    witness = tmp_path / "witness"
    trap = np.array([RunsCode(witness)], dtype=object)
    path = written({"MobilenetV2/Conv/weights": trap}, tmp_path)
    message = refusal(path)
    assert path in message
    assert not witness.exists()


@pytest.mark.parametrize("kept", [0, 10, 1000, -1, -1000])
def test_a_truncated_file_is_refused(kept, tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{"MobilenetV2/Conv/weights": np.zeros((3, 3, 3, 16), np.float32)})
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path}: expected an .npz file of arrays" in refusal(path)


def test_an_encrypted_file_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{"MobilenetV2/Conv/weights": np.zeros(3)})
    content = path.read_bytes()
    # Bit 0 of the flags, which stand behind the signature and the versions that wrote and read it.
    flags = content.index(b"PK\x01\x02") + 8
    path.write_bytes(content[:flags] + b"\x01" + content[flags + 1 :])
    assert f"{path}: expected an .npz file of arrays" in refusal(path)


def test_a_damaged_compressed_file_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    rng = np.random.default_rng(0)
    np.savez_compressed(path, **{"MobilenetV2/Conv/weights": rng.random((3, 3, 3, 16))})
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(content)
    assert f"{path}: expected an .npz file of arrays" in refusal(path)


def test_one_array_alone_is_refused(tmp_path):
    np.save(tmp_path / "w.npy", np.zeros(3))
    assert "expected TensorFlow's variables as an .npz file" in refusal(tmp_path / "w.npy")
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    assert "w.npz: expected an .npz file of arrays" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("text", ["", "weights\n", "PK"])
def test_a_text_is_refused(text, tmp_path):
    path = tmp_path / "w.npz"
    path.write_text(text)
    assert f"{path}: expected an .npz file of arrays" in refusal(path)


def test_a_zip_without_arrays_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    assert "expected arrays of numbers, got |S8 under 'readme.txt'" in refusal(tmp_path / "w.npz")


def test_arrays_of_text_are_refused(tmp_path):
    path = written({"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"graph")}, tmp_path)
    expected = "expected arrays of numbers, got |S5 under '_CHECKPOINTABLE_OBJECT_GRAPH'"
    assert expected in refusal(path)


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "none.npz"
    assert refusal(path) == f"{path}: expected a file, found none"


# Checkpoints, frozen graphs, releases


def same(weights, variables, tmp_path):
    expected = read(variables, tmp_path)
    assert weights.info == expected.info
    assert weights.tensors.keys() == expected.tensors.keys()
    return all(torch.equal(weights.tensors[n], t) for n, t in expected.tensors.items())


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_is_read_without_tensorflow(suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    prefix = write_checkpoint(tmp_path / "model.ckpt", deeplab())
    assert same(read_tensorflow(f"{prefix}{suffix}"), deeplab(), tmp_path)


def test_a_checkpoint_may_have_several_shards_and_one_block(tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", deeplab(), num_shards=3, blocks=1)
    assert same(read_tensorflow(str(prefix)), deeplab(), tmp_path)


def test_the_newest_checkpoint_of_a_folder_is_read(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_checkpoint(folder / "model.ckpt-90", {"other": np.zeros(1, np.float32)})
    write_checkpoint(folder / "model.ckpt-100", deeplab())
    assert same(read_tensorflow(str(folder)), deeplab(), tmp_path)


def test_a_frozen_graph_is_read_without_its_other_constants(tmp_path):
    path = write_frozen_graph(tmp_path / "frozen_inference_graph.pb", deeplab())
    assert same(read_tensorflow(str(path)), deeplab(), tmp_path)


@pytest.mark.parametrize("files", ["checkpoint", "graph", "both"])
def test_the_archive_of_a_release_is_read(files, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    if files != "graph":
        write_checkpoint(folder / "model.ckpt", deeplab())
    if files != "checkpoint":
        write_frozen_graph(folder / "frozen_inference_graph.pb", deeplab())
    path = write_release(tmp_path / "deeplab_2018.tar.gz", folder)
    before = set(tmp_path.iterdir())
    assert same(read_tensorflow(str(path)), deeplab(), tmp_path)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "weights.npz"}


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("../../escaped.index")
        archive.addfile(member)
    refusal(path)
    assert not list(tmp_path.parent.rglob("escaped.index"))


def test_sources_that_are_not_there_are_refused_with_what_is_read(tmp_path):
    message = refusal(tmp_path / "model.ckpt")
    assert "(the PREFIX of PREFIX.index), a frozen graph (.pb)" in message
    assert "found none" in message
    assert "found none" in refusal(tmp_path)


def flipped(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "expected"),
    [
        ("index", lambda p: flipped(p, 20), "the checksum of its index does not match"),
        ("index", lambda p: p.write_bytes(p.read_bytes()[:-9]), "is not a table of TensorFlow"),
        ("index", lambda p: p.write_bytes(b""), "its index is not a table of TensorFlow"),
        ("data-00000-of-00001", lambda p: flipped(p, 9), "its checksum does not match"),
        ("data-00000-of-00001", lambda p: p.write_bytes(p.read_bytes()[:-1]), "is cut short"),
        ("data-00000-of-00001", lambda p: p.unlink(), "No such file"),
    ],
)
def test_a_damaged_checkpoint_is_refused(file, damage, expected, tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", deeplab())
    damage(tmp_path / f"model.ckpt.{file}")
    message = refusal(prefix)
    assert "model.ckpt: not a whole checkpoint (" in message
    assert expected in message


def test_a_compressed_index_is_refused(tmp_path):
    prefix = write_checkpoint(tmp_path / "model.ckpt", deeplab(), compression=1)
    assert "its index is compressed, which is not supported" in refusal(prefix)


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_file_that_is_no_frozen_graph_is_refused(content, tmp_path):
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    assert "frozen graph" in refusal(path)


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"no archive")
    assert "model.tar.gz: not a whole archive (" in refusal(path)
