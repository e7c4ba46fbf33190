"""Imported weights: every tensor is used, and our network computes what the original does."""

import json
import math
import re
import sys
from dataclasses import replace

import pytest
import torch
from networks import random_images, randomise
from safetensors.torch import save_file
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import mobilenet_v2
from unsafe_pickle import RunsCode

from mbv2det.backbones.feature import Feature
from mbv2det.build import build_backbone, load_network
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.labels import VOC_NAMES
from mbv2det.model_config import BackboneConfig
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.huggingface import hf_name, read_hf
from mbv2det.weights.source import Mismatch, MismatchError
from mbv2det.weights.timm import read_timm, timm_name
from mbv2det.weights.torchvision import mobilenet_v2_name, read_torchvision

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = [0.35, 0.5, 0.75, 1.0, 1.4]
# All sides of the first are odd at every stride; those of the second even first, odd later.
SIZES = [(65, 97), (66, 100)]
LAYERS = [f"layer_{k}" for k in range(1, 20)]
# Absolute, in float64, for activations of order one, which `differences` asserts. In float32,
# rounding errors grow to 1e-4 over nineteen layers.
TOLERANCE = 1e-9
CLASSES = 7


# Networks of the libraries, and files of their weights


def with_random_weights(network):
    """Randomises every tensor, the linear classifier's too."""
    randomise(network, gain=2**0.5)
    generator = torch.Generator().manual_seed(2)
    for m in network.modules():
        if isinstance(m, nn.Linear):
            m.weight.data.normal_(0, m.in_features**-0.5, generator=generator)
            m.bias.data.normal_(generator=generator)
    return network


def torchvision_net(width_mult=0.35):
    return with_random_weights(mobilenet_v2(width_mult=width_mult, num_classes=CLASSES))


def timm_net(width_mult=0.35, num_classes=CLASSES):
    timm = pytest.importorskip("timm")
    name = f"mobilenetv2_{round(100 * width_mult):03d}"
    return with_random_weights(timm.create_model(name, num_classes=num_classes))


def hf_net(kind="ForImageClassification", width_mult=0.35, num_labels=CLASSES, **settings):
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(
        depth_multiplier=width_mult, num_labels=num_labels, **settings
    )
    return with_random_weights(getattr(transformers, f"MobileNetV2{kind}")(config))


def saved(content, folder, name="weights.pth"):
    torch.save(content, folder / name)
    return str(folder / name)


def hf_folder(network, folder, processor=None, **changes):
    """Writes a network as transformers does; keyword arguments replace settings of config.json."""
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


# Our network, and the comparison


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def imported(source):
    return load_network(source)[0].eval()


def with_backbone(source, **settings):
    """Returns the same weights for a backbone of other settings."""
    model = source.info.model
    model = replace(model, backbone=replace(model.backbone, **settings))
    return replace(source, info=replace(source.info, model=model))


def pixels(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def outputs_of(network, modules, x):
    """Returns the output of a network, and the outputs of some of its modules by name."""
    outputs = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        last = network(x)
    for hook in hooks:
        hook.remove()
    return last, outputs


def differences(model, reference, modules, size):
    """Returns the largest difference of each layer and of the logits between two networks.

    Both see the same normalised images of `size`.
    """
    model, reference = model.double(), reference.double()
    model.backbone.out_features = tuple(Feature(name) for name in modules)
    x = model.normalize(pixels(*size))
    logits, expected = outputs_of(reference, modules, x)
    with torch.no_grad():
        features = model.backbone(x)
        outputs = {feature.layer: value for feature, value in features.items()}
        for task, head in model.heads.items():
            head_outputs = head(features, size)
            outputs[task] = getattr(head_outputs, "logits", head_outputs)
            expected[task] = getattr(logits, "logits", logits)
    for name, value in expected.items():
        assert outputs[name].shape == value.shape, name
        assert 0.1 < value.std() < 10, name  # of order one: the signal neither dies nor explodes
    return {name: (outputs[name] - value).abs().max().item() for name, value in expected.items()}


def assert_same(model, reference, modules):
    for size in SIZES:
        by_name = differences(model, reference, modules, size)
        assert {name: value for name, value in by_name.items() if value > TOLERANCE} == {}


# Parity


@pytest.mark.parametrize("width_mult", WIDTHS)
def test_torchvision(width_mult, tmp_path):
    reference = torchvision_net(width_mult)
    model = imported(read_torchvision(saved(reference.state_dict(), tmp_path)))
    assert_same(model, reference, dict(zip(LAYERS, reference.features, strict=True)))


@pytest.mark.parametrize("width_mult", WIDTHS)
def test_timm(width_mult, tmp_path):
    reference = timm_net(width_mult)
    blocks = [block for stage in reference.blocks for block in stage]
    model = imported(read_timm(saved(reference.state_dict(), tmp_path)))
    modules = dict(zip(LAYERS, [reference.bn1, *blocks, reference.bn2], strict=True))
    assert_same(model, reference, modules)


def hf_modules(network):
    base = network.mobilenet_v2
    stem = [base.conv_stem.first_conv, base.conv_stem]
    return dict(zip(LAYERS, [*stem, *base.layer, base.conv_1x1], strict=True))


@pytest.mark.parametrize("tf_padding", [True, False])
@pytest.mark.parametrize("width_mult", WIDTHS)
def test_hugging_face_classifier(width_mult, tf_padding, tmp_path):
    reference = hf_net(width_mult=width_mult, tf_padding=tf_padding)
    model = imported(read_hf(hf_folder(reference, tmp_path)))
    assert_same(model, reference, hf_modules(reference))


@pytest.mark.parametrize("tf_padding", [True, False])
@pytest.mark.parametrize(
    ("width_mult", "output_stride"), [(0.35, 16), (0.5, 8), (0.75, 32), (1.0, 8), (1.4, 16)]
)
def test_hugging_face_segmenter(width_mult, output_stride, tf_padding, tmp_path):
    reference = hf_net(
        "ForSemanticSegmentation", width_mult, output_stride=output_stride, tf_padding=tf_padding
    )
    model = imported(read_hf(hf_folder(reference, tmp_path)))
    modules = hf_modules(reference)
    del modules["layer_19"]  # the head does not read it
    assert_same(model, reference, modules)


@pytest.mark.parametrize("tf_padding", [True, False])
def test_the_other_padding_differs_by_far_more_than_the_tolerance(tf_padding, tmp_path):
    reference = hf_net(tf_padding=tf_padding)
    source = read_hf(hf_folder(reference, tmp_path))
    other = {"same": "symmetric", "symmetric": "same"}[source.info.model.backbone.padding]
    model = imported(with_backbone(source, padding=other))
    odd, even = (differences(model, reference, hf_modules(reference), size) for size in SIZES)
    assert max(odd.values()) < TOLERANCE  # both rules pad one pixel on each side there
    assert min(even.values()) > 0.1


def test_another_epsilon_differs_by_far_more_than_the_tolerance(tmp_path):
    reference = hf_net()
    model = imported(with_backbone(read_hf(hf_folder(reference, tmp_path)), norm_eps=1e-5))
    assert min(differences(model, reference, hf_modules(reference), SIZES[0]).values()) > 1e-3


@pytest.mark.parametrize(("finegrained", "channels"), [(True, 1280), (False, 448)])
def test_hugging_faces_last_layer_may_be_scaled(finegrained, channels, tmp_path):
    reference = hf_net(finegrained_output=finegrained)
    source = read_hf(hf_folder(reference, tmp_path))
    assert source.info.model.backbone.scale_last_layer is not finegrained
    model = imported(source)
    assert model.backbone.feature_specs[Feature("layer_19")].channels == channels
    assert_same(model, reference, hf_modules(reference))
    alone = read_hf(str(tmp_path / "model.safetensors"))
    assert alone.info.model == source.info.model


@pytest.mark.parametrize("kind", ["Model", "ForImageClassification", "ForSemanticSegmentation"])
def test_the_reference_is_hugging_faces_network(kind, tmp_path):
    reference = hf_net(kind, output_stride=16, tf_padding=False)
    source = read_hf(hf_folder(reference, tmp_path))
    x = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        output, expected = source.reference(x), reference(x)
    assert torch.equal(output, expected[0])  # the last feature or the logits


@pytest.mark.parametrize("num_classes", [0, CLASSES])
def test_the_reference_is_timms_network(num_classes, tmp_path):
    reference = timm_net(num_classes=num_classes)
    source = read_timm(saved(reference.state_dict(), tmp_path))
    x = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        output = source.reference(x)
        expected = reference(x) if num_classes else reference.forward_features(x)
    assert torch.equal(output, expected)


def headless(library, folder):
    """Returns weights without a classifier, images, and the library's last feature of them."""
    x = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        if library == "torchvision":
            net = torchvision_net()
            state = {k: v for k, v in net.state_dict().items() if not k.startswith("classifier")}
            return read_torchvision(saved(state, folder)), x, net.features(x)
        if library == "timm":
            net = timm_net(num_classes=0)
            return read_timm(saved(net.state_dict(), folder)), x, net.forward_features(x)
        net = hf_net("Model")
        return read_hf(hf_folder(net, folder)), x, net(x).last_hidden_state


@pytest.mark.parametrize("library", ["torchvision", "timm", "hf"])
def test_weights_without_a_head_fill_a_backbone(library, tmp_path):
    source, x, expected = headless(library, tmp_path)
    assert source.info.label_maps == {}
    backbone = build_backbone(source.info.model.backbone).eval()
    backbone.load_state_dict(source.backbone(shapes(backbone)))
    with torch.no_grad():
        feature = backbone(x)[Feature("layer_19")]
    torch.testing.assert_close(feature, expected, rtol=0, atol=1e-3)  # float32, see TOLERANCE


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_resnet_equals_torchvision(name, tmp_path):
    torch.manual_seed(0)
    reference = randomise(getattr(torchvision_models, name)(num_classes=4))
    source = read_torchvision(saved(reference.state_dict(), tmp_path))
    assert source.info.model.backbone.name == name
    model = imported(source).eval()
    x = random_images(65, 97)
    with torch.no_grad():
        expected = reference(x)
        logits = model.heads["classification"](model.backbone(x), (65, 97))
    # The same float32 operations; the pools may add in another order.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(source.reference(x), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet152"])
def test_other_resnets_are_refused(name, tmp_path):
    with torch.device("meta"):
        names = getattr(torchvision_models, name)().state_dict()
    path = saved(dict.fromkeys(names, torch.zeros(1)), tmp_path)
    with pytest.raises(ConfigError, match=r"got a ResNet with \d+ blocks in layer3"):
        read_torchvision(path)


# Every tensor is accounted for


LIBRARIES = {
    "torchvision": (torchvision_net, read_torchvision, mobilenet_v2_name),
    "timm": (timm_net, read_timm, timm_name),
    "hf": (hf_net, read_hf, hf_name),
}
every_library = pytest.mark.parametrize("library", LIBRARIES)
REMOVED = "backbone.layers.layer_7.expand.norm.bias"
RENAMED = "backbone.layers.layer_4.project.norm.bias"
CUT = "backbone.layers.layer_1.norm.bias"


@every_library
def test_all_tensors_that_do_not_match_are_listed(library, tmp_path):
    network, read, name_of = LIBRARIES[library]
    tensors = network().state_dict()
    removed, renamed, cut = map(name_of, (REMOVED, RENAMED, CUT))
    del tensors[removed]
    tensors["other"] = tensors.pop(renamed)
    tensors["more"] = torch.zeros(2, 3)
    tensors[cut] = tensors[cut][:3]
    with pytest.raises(MismatchError) as caught:
        imported(read(saved(tensors, tmp_path)))
    assert set(caught.value.rows) == {
        Mismatch("missing", removed, f"(96,) for {REMOVED}", ""),
        Mismatch("missing", renamed, f"(8,) for {RENAMED}", ""),
        Mismatch("unexpected", "other", "", "(8,)"),
        Mismatch("unexpected", "more", "", "(2, 3)"),
        Mismatch("wrong shape", cut, "(16,)", "(3,)"),
    }
    for problem in ("2 missing", "2 unexpected", "1 wrong shape"):
        assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unused_tensors_of_hugging_faces_segmenter_are_left_out_with_a_note(tmp_path):
    reference = hf_net("ForSemanticSegmentation")
    source = read_hf(hf_folder(reference, tmp_path))
    left = reference.state_dict().keys() - source.tensors.keys()
    assert len(left) == 6
    assert all(name.startswith("mobilenet_v2.conv_1x1.") for name in left)
    assert "left out 6 tensors of mobilenet_v2.conv_1x1" in source.notes[0]


def test_hugging_faces_segmenter_with_another_layer_is_refused(tmp_path):
    reference = hf_net("ForSemanticSegmentation")
    reference.segmentation_head.extra = nn.Conv2d(1, 2, 1, bias=False)
    with pytest.raises(MismatchError, match=r"1 unexpected; first: segmentation_head\.extra"):
        imported(read_hf(hf_folder(reference, tmp_path)))


# Files that cannot be read


def refusal(read, source):
    with pytest.raises(ConfigError) as caught:
        read(str(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@every_library
def test_a_pickle_that_would_run_code_is_refused_without_running_it(library, tmp_path):
    _, read, name_of = LIBRARIES[library]
    witness = tmp_path / "witness"
    path = saved({name_of(CUT): RunsCode(witness)}, tmp_path)
    assert "expected a file of tensors" in refusal(read, path)
    assert not witness.exists()


@every_library
@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors"])
def test_truncated_files_are_refused(library, suffix, tmp_path):
    _, read, name_of = LIBRARIES[library]
    path = tmp_path / f"weights.{suffix}"
    save = save_file if suffix == "safetensors" else torch.save
    save({name_of(CUT): torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in refusal(read, path)


@every_library
def test_other_networks_are_refused(library, tmp_path):
    path = saved({"conv1.weight": torch.zeros(1)}, tmp_path)
    message = refusal(LIBRARIES[library][1], path)
    assert re.search(
        r"expected MobileNetV2, got no tensor .* \(first name: 'conv1.weight'\)", message
    )


@every_library
def test_missing_sources_are_refused(library, tmp_path):
    assert "none.safetensors" in refusal(LIBRARIES[library][1], tmp_path / "none.safetensors")


# timm


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.empty(0)])
@pytest.mark.parametrize("name", ["classifier.weight", "conv_stem.weight"])
def test_timms_tensors_without_rows_are_refused(name, value, tmp_path):
    tensors = timm_net().state_dict() | {name: value}
    assert f"{name}: expected a row for each output" in refusal(read_timm, saved(tensors, tmp_path))


def test_a_note_tells_how_timm_crops(tmp_path):
    timm = pytest.importorskip("timm")
    (note,) = read_timm(saved(timm_net().state_dict(), tmp_path)).notes
    assert "the whole image is stretched to 224 x 224, bilinearly" in note
    for name in timm.list_models("mobilenetv2_*", pretrained=True):
        config = timm.get_pretrained_cfg(name)
        size = round(config.input_size[-1] / config.crop_pct)
        assert (config.interpolation, config.crop_mode) == ("bicubic", "center")
        assert f"shorter side to {size}, bicubically, and cuts out the middle" in note


def test_timms_preprocessing_and_labels(tmp_path):
    source = read_timm(saved(timm_net(num_classes=1000).state_dict(), tmp_path))
    assert source.info.preprocess == PreprocessSpec(
        (224, 224), "stretch", IMAGENET_MEAN, IMAGENET_STD
    )
    assert source.info.label_maps["classification"].names[0] == "tench"
    assert source.info.model.backbone == BackboneConfig(width_mult=0.35)


@pytest.mark.parametrize("name", ["mobilenetv2_110d", "mobilenetv2_120d.ra_in1k"])
def test_timms_deeper_networks_are_refused_by_name(name):
    assert "expected MobileNetV2, got a network with more blocks" in refusal(read_timm, name)


def test_timms_deeper_networks_are_refused_by_their_blocks(tmp_path):
    tensors = timm_net().state_dict() | {"blocks.1.2.conv_pw.weight": torch.zeros(1)}
    assert "expected MobileNetV2, got a network with more blocks" in refusal(
        read_timm, saved(tensors, tmp_path)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "expected a file of a state dict, or mobilenetv2_035, .*, got resnet50"),
        ("mobilenetv2_100.none", r"weights that timm has \(.*mobilenetv2_100\.ra_in1k.*\), got"),
        ("mobilenetv2_035", r"weights that timm has \(.*\), got mobilenetv2_035"),  # untrained
    ],
)
def test_names_without_weights_are_refused(name, message):
    pytest.importorskip("timm")
    assert re.search(message, refusal(read_timm, name))


def test_without_timm_names_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install timm, or give a file" in refusal(read_timm, "mobilenetv2_100")


def test_files_of_timm_are_read_without_timm(tmp_path, monkeypatch):
    path = saved(timm_net().state_dict(), tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)
    source = read_timm(path)
    imported(source)
    assert source.reference is None


def test_weights_that_cannot_be_downloaded_are_refused(monkeypatch):
    def offline(*_arguments, **_settings):
        raise OSError("no route to the host\nsecond line")

    monkeypatch.setattr(pytest.importorskip("timm"), "create_model", offline)
    expected = r"cannot be downloaded \(no route to the host\); download it elsewhere"
    assert re.search(expected, refusal(read_timm, "mobilenetv2_100.ra_in1k"))


def test_weights_are_downloaded_by_name(monkeypatch):
    reference = timm_net(1.0)
    calls = []

    def create_model(name, pretrained):
        calls.append((name, pretrained))
        return reference

    monkeypatch.setattr(pytest.importorskip("timm"), "create_model", create_model)
    source = read_timm("mobilenetv2_100.ra_in1k")
    assert calls == [("mobilenetv2_100.ra_in1k", True)]
    assert source.info.model.backbone.width_mult == 1
    assert torch.equal(source.tensors["bn2.weight"], reference.bn2.weight)


# Hugging Face


@pytest.fixture(scope="module")
def plain_hf():
    """Returns one network for all tests that only read settings."""
    return hf_net()


def test_a_folder_gives_all_settings(tmp_path):
    reference = hf_net(
        "ForSemanticSegmentation", layer_norm_eps=0.01, output_stride=8, tf_padding=False,
        classifier_dropout_prob=0.25, finegrained_output=False,
    )  # fmt: skip
    info = read_hf(hf_folder(reference, tmp_path)).info
    assert info.model.backbone == BackboneConfig(
        width_mult=0.35, output_stride=8, norm_eps=0.01, scale_last_layer=True
    )
    assert info.model.heads == {"segmentation": DeepLabV3Config(dropout=0.25, norm_eps=1e-5)}
    assert info.preprocess == PreprocessSpec((513, 513), "fit")


def test_a_file_alone_is_read_with_the_defaults_of_transformers(tmp_path):
    reference = hf_net()
    source = read_hf(saved(reference.state_dict(), tmp_path, "pytorch_model.bin"))
    assert source.info == read_hf(hf_folder(reference, tmp_path)).info
    assert source.info.model.backbone == BackboneConfig(
        width_mult=0.35, padding="same", norm_eps=1e-3
    )
    assert source.info.model.heads == {"classification": ClassifierConfig(dropout=0.8)}
    assert source.info.preprocess == PreprocessSpec((224, 224), "stretch")
    for part in ("no config.json", '"tf_padding": true', '"layer_norm_eps": 0.001'):
        assert part in source.notes[0]
    assert "dropout 0.8" in source.notes[1]


def test_a_folder_may_contain_a_pickle_of_tensors(tmp_path):
    reference = hf_net()
    expected = read_hf(hf_folder(reference, tmp_path))
    (tmp_path / "model.safetensors").unlink()
    saved(reference.state_dict(), tmp_path, "pytorch_model.bin")
    source = read_hf(str(tmp_path))
    assert source.info == expected.info
    assert source.tensors.keys() == expected.tensors.keys()


def test_a_folder_without_config_is_refused(tmp_path, plain_hf):
    hf_folder(plain_hf, tmp_path)
    (tmp_path / "config.json").unlink()
    assert "expected config.json beside the weights, found none" in refusal(read_hf, tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    expected = "expected model.safetensors or pytorch_model.bin, found neither"
    assert expected in refusal(read_hf, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{,", "expected JSON, got other text"), ("[]", "expected settings by name, got list")],
)
def test_a_config_that_is_not_a_json_object_is_refused(text, message, tmp_path, plain_hf):
    hf_folder(plain_hf, tmp_path)
    (tmp_path / "config.json").write_text(text)
    assert message in refusal(read_hf, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "mobilenet_v1", 'expected "mobilenet_v2", got "mobilenet_v1"'),
        ("num_channels", 1, "expected 3, got 1"),
        ("expand_ratio", 4, "expected 6, got 4"),
        ("depth_divisible_by", 16, "expected 8, got 16"),
        ("first_layer_is_expansion", False, "expected true, got false"),
        ("hidden_act", "relu", 'expected "relu6", got "relu"'),
        ("output_stride", 4, "expected 8, 16 or 32, got 4"),
        ("tf_padding", "yes", 'expected true or false, got "yes"'),
        ("layer_norm_eps", 0, "expected a number above 0, got 0"),
        ("classifier_dropout_prob", 1, "expected from 0 to below 1, got 1"),
        ("depth_multiplier", 1.0, "expected 0.35, as the tensors' shapes have, got 1.0"),
        ("depth_multiplier", True, "expected a number above 0, got true"),
        ("id2label", {"0": "a", "2": "b"}, "expected a name for each of 0 to 6, got 2 names"),
    ],
)
def test_settings_that_our_network_cannot_have_are_refused(key, value, message, tmp_path, plain_hf):
    folder = hf_folder(plain_hf, tmp_path, **{key: value})
    assert f"{key}: {message}" in refusal(read_hf, folder)


def test_the_width_is_the_configs_if_both_have_the_same_channels(tmp_path):
    reference = hf_net(width_mult=0.51, finegrained_output=False)
    source = read_hf(hf_folder(reference, tmp_path))
    assert source.info.model.backbone.width_mult == 0.51
    imported(source)


def test_class_names_of_the_config_are_made_unique(tmp_path, plain_hf):
    names = ["crane", "dog", "crane", "cat", "a", "b", "c"]
    folder = hf_folder(plain_hf, tmp_path, id2label=dict(enumerate(names)))
    label_map = read_hf(folder).info.label_maps["classification"]
    assert label_map.names == ("crane (0)", "dog", "crane (2)", "cat", "a", "b", "c")


@pytest.mark.parametrize(
    ("kind", "count", "first", "last"),
    [
        ("ForImageClassification", 1001, "background", "toilet tissue"),
        ("ForImageClassification", 7, "class 0", "class 6"),
        ("ForSemanticSegmentation", 21, "background", VOC_NAMES[-1]),
        ("ForSemanticSegmentation", 7, "class 0", "class 6"),
    ],
)
def test_classes_without_names_get_those_of_a_data_set_or_numbers(
    kind, count, first, last, tmp_path
):
    source = read_hf(hf_folder(hf_net(kind, num_labels=count), tmp_path))
    (label_map,) = source.info.label_maps.values()
    assert (label_map.names[0], label_map.names[-1]) == (first, last)
    assert label_map.ids == tuple(range(count))


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (
            {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
            PreprocessSpec((224, 224), "stretch", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ),
        (
            {"do_normalize": False, "crop_size": {"height": 96, "width": 128}},
            PreprocessSpec((96, 128), "stretch", (0, 0, 0), (1, 1, 1)),
        ),
        ({"crop_size": 96, "size": {"shortest_edge": 128}}, PreprocessSpec((96, 96))),
        (
            {"do_center_crop": False, "crop_size": 96, "size": {"height": 64, "width": 80}},
            PreprocessSpec((64, 80)),
        ),
        ({"do_center_crop": False, "size": {"shortest_edge": 128}}, PreprocessSpec((128, 128))),
        ({"do_center_crop": False, "size": 128}, PreprocessSpec((128, 128))),
        (
            {"do_center_crop": None, "crop_size": None, "image_mean": None},
            PreprocessSpec((224, 224)),
        ),
    ],
)
def test_preprocessing_is_that_of_the_processor(processor, expected, tmp_path, plain_hf):
    assert read_hf(hf_folder(plain_hf, tmp_path, processor)).info.preprocess == expected


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"do_rescale": False}, "do_rescale: expected true, got false"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order: expected false, got true"),
        ({"do_resize": False}, "do_resize: expected true, got false"),
        ({"do_center_crop": "no"}, 'do_center_crop: expected true or false, got "no"'),
        ({"do_normalize": 1}, "do_normalize: expected true or false, got 1"),
        ({"resample": True}, "resample: expected 0 to 5, one of PIL's, got true"),
        ({"resample": 6}, "resample: expected 0 to 5, one of PIL's, got 6"),
        ({"resample": "bicubic"}, 'resample: expected 0 to 5, one of PIL\'s, got "bicubic"'),
        ({"image_mean": 0.5}, "image_mean: expected three numbers, got 0.5"),
        ({"image_mean": [0.5, 0.5, math.nan]}, "image_mean: expected three numbers, got"),
        ({"image_std": [0, 0, 0]}, "image_std: expected three numbers above 0, got [0, 0, 0]"),
        ({"crop_size": 0}, "crop_size: expected pixels of height and width, got 0"),
        ({"crop_size": {"height": "a", "width": 2}}, "crop_size: expected pixels of height and"),
        ({"crop_size": {"height": 2.5, "width": 2}}, "crop_size: expected pixels of height and"),
        ({"crop_size": {"height": 32}}, 'of height and width, got {"height": 32}'),
        ({"size": True}, "size: expected pixels of the shortest_edge, or of height and width, got"),
        ({"size": {"longest_edge": 9}}, 'or of height and width, got {"longest_edge": 9}'),
    ],
)
def test_preprocessing_that_ours_cannot_do_is_refused(processor, message, tmp_path, plain_hf):
    error = refusal(read_hf, hf_folder(plain_hf, tmp_path, processor))
    assert message in error
    assert "preprocessor_config.json: " in error


CROPPED = {"size": {"shortest_edge": 256}, "crop_size": {"height": 96, "width": 128}}
WHOLE = {"size": {"height": 96, "width": 128}, "crop_size": {"height": 96, "width": 128}}


@pytest.mark.parametrize(
    ("processor", "notes"),
    [
        (
            CROPPED,
            [
                "preprocessing: the whole image is stretched to 96 x 128; transformers scales the "
                "shorter side to 256 and cuts out 96 x 128 in the middle"
            ],
        ),
        (
            CROPPED | {"do_center_crop": False},
            [
                "preprocessing: the whole image is stretched to 256 x 256; transformers scales the "
                "shorter side to 256"
            ],
        ),
        (
            CROPPED | {"size": {"height": 100, "width": 200}},
            [
                "preprocessing: the whole image is stretched to 96 x 128; transformers scales "
                "images to 100 x 200 and cuts out 96 x 128 in the middle"
            ],
        ),
        (WHOLE, []),
        (WHOLE | {"do_center_crop": False}, []),
        (
            WHOLE | {"resample": 3},
            ["preprocessing: interpolation is bilinear; the processor's is bicubic"],
        ),
    ],
)
def test_notes_tell_where_preprocessing_differs(processor, notes, tmp_path, plain_hf):
    all_notes = read_hf(hf_folder(plain_hf, tmp_path, processor)).notes
    assert [note for note in all_notes if note.startswith("preprocessing")] == notes


def test_a_segmenter_has_the_input_of_its_processor(tmp_path):
    reference = hf_net("ForSemanticSegmentation")
    whole = read_hf(hf_folder(reference, tmp_path, WHOLE))
    assert whole.info.preprocess == PreprocessSpec((96, 128), "stretch")
    cut = read_hf(hf_folder(reference, tmp_path, CROPPED))
    assert cut.info.preprocess == PreprocessSpec((96, 128), "fit")
    assert "the whole image is fitted into 96 x 128" in cut.notes[-1]


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.empty(0)])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ForImageClassification", "classifier.weight"),
        ("ForImageClassification", "mobilenet_v2.conv_1x1.convolution.weight"),
        ("ForImageClassification", "mobilenet_v2.conv_stem.first_conv.convolution.weight"),
        ("ForSemanticSegmentation", "segmentation_head.classifier.convolution.weight"),
    ],
)
def test_hugging_faces_tensors_without_rows_are_refused(kind, name, value, tmp_path):
    tensors = hf_net(kind).state_dict() | {name: value}
    assert f"{name}: expected a row for each output" in refusal(read_hf, saved(tensors, tmp_path))


@every_library
@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.empty(0), torch.zeros(CLASSES)])
def test_classifiers_of_another_shape_are_refused(library, value, tmp_path):
    network, read, name_of = LIBRARIES[library]
    for tensor in ("weight", "bias"):
        name = name_of(f"heads.classification.linear.{tensor}")
        tensors = network().state_dict()
        if tensors[name].shape == value.shape:
            continue
        path = saved(tensors | {name: value}, tmp_path)
        error = refusal(lambda source: imported(read(source)), path)
        assert f"{name}: expected a row for each output" in error or f"first: {name}" in error
