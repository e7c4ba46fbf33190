"""What other projects use: a folder for the Hub with its model card, and backbones."""

import json

import numpy as np
import pytest
import torch
from networks import random_images, randomise
from runs import run_command, write_config
from safetensors import safe_open
from torchvision.models import mobilenet_v2

import mbv2det
from mbv2det.backbones.feature import Feature
from mbv2det.backbones.mobilenet_v2 import MobileNetV2
from mbv2det.build import build_model
from mbv2det.cli.command_line import command_line
from mbv2det.deploy.predictor import Predictor
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import load_weights, save_weights
from mbv2det.weights.source import MismatchError

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (64, 96)
DETECTION = {"detection": SSDLiteConfig()}
SEGMENTATION = {"segmentation": DeepLabV3Config(channels=16)}
CLASSIFICATION = {"classification": ClassifierConfig()}
LABEL_MAPS = {
    "detection": LabelMap(("cat", "dog"), (7, 90)),
    "segmentation": LabelMap.of_masks(("background", "tree")),
    "classification": LabelMap.of_masks([f"class {k}" for k in range(7)]),
}


def info_of(heads, width_mult=0.1, **settings):
    return WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=width_mult, padding="same", norm_eps=1e-3), heads),
        PreprocessSpec(SIZE, "fit", IMAGENET_MEAN, IMAGENET_STD),
        {task: LABEL_MAPS[task] for task in heads},
        **settings,
    )


def network_of(info):
    return randomise(build_model(info.model, info.preprocess, info.label_maps))


def picture():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


# Folders


BOTH = DETECTION | SEGMENTATION
MEASURED = info_of(
    BOTH,
    eval=EvalConfig(score_threshold=0.2, nms_iou=0.45),
    metrics={
        "detection": {"AP": 0.51234, "AP50": 0.75, "images": 5, "per_class": {"cat": 0.5}},
        "segmentation": {"mIoU": 0.7, "images": 3, "per_class": {"tree": None}},
        "images": 6,
        "epoch": 11,
    },
    command="train.py both.yaml --weights=start.safetensors",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns a predictor and the folder that it was saved to."""
    folder = tmp_path_factory.mktemp("hub")
    predictor = Predictor.of_model(network_of(MEASURED), MEASURED)
    predictor.save_pretrained(folder)
    return predictor, folder


def test_a_saved_folder_loads_as_the_same_predictor(saved):
    predictor, folder = saved
    again = Predictor.from_pretrained(folder)
    assert again.info == predictor.info
    state = predictor.model.state_dict()
    assert all(torch.equal(state[n], tensor) for n, tensor in again.model.state_dict().items())
    predictions, expected = again([picture()])[0], predictor([picture()])[0]
    assert len(expected.detection.boxes) > 0
    for part in ("boxes", "scores", "labels"):
        equal = getattr(predictions.detection, part), getattr(expected.detection, part)
        assert torch.equal(*equal)
    assert torch.equal(predictions.segmentation.labels, expected.segmentation.labels)


def test_a_folder_contains_weights_settings_and_a_model_card(saved):
    predictor, folder = saved
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "config.json", "README.md"
    }  # fmt: skip
    assert load_weights(folder / "model.safetensors")[1] == predictor.info
    config = json.loads((folder / "config.json").read_text())["mbv2det"]
    assert config["model"]["backbone"]["width_mult"] == 0.1
    assert mbv2det.load(folder / "model.safetensors").info == predictor.info


def test_the_model_card_contains_metrics_and_command(saved):
    page = (saved[1] / "README.md").read_text()
    assert page.startswith("---\nlibrary_name: mbv2det\npipeline_tag: object-detection\n")
    for line in (
        "# mobilenet_v2 for detection and segmentation",
        "| detection | AP | 0.512 |",
        "| detection | AP50 | 0.750 |",
        "| detection | images | 5 |",
        "| segmentation | mIoU | 0.700 |",
        "| segmentation | images | 3 |",
        "    train.py both.yaml --weights=start.safetensors",
        "* detection: cat, dog",
        "* segmentation: background, tree",
    ):
        assert line in page.splitlines(), line
    assert "64 x 96 pixels (height x width), RGB, mean (0.485, 0.456, 0.406)" in page
    assert f"{sum(p.numel() for p in saved[0].model.parameters()):,} parameters" in page
    assert "Not measured" not in page


@pytest.mark.parametrize(
    ("heads", "title", "pipeline"),
    [
        (DETECTION, "detection", "object-detection"),
        (SEGMENTATION, "segmentation", "image-segmentation"),
        (CLASSIFICATION, "classification", "image-classification"),
        ({}, "features", None),
    ],
    ids=["detection", "segmentation", "classification", "backbone"],
)
def test_the_model_card_of_imported_weights_says_so(heads, title, pipeline, tmp_path):
    info = info_of(heads)
    Predictor.of_model(network_of(info), info).save_pretrained(tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert f"# mobilenet_v2 for {title}" in lines
    assert "Not measured: the weights come without metrics." in lines
    assert "Imported weights: no training of mbv2det made them." in lines
    assert [f"pipeline_tag: {pipeline}"] * bool(pipeline) == [
        line for line in lines if line.startswith("pipeline_tag")
    ]


def test_an_unknown_argument_is_refused(saved):
    with pytest.raises(TypeError, match="unexpected keyword argument 'score_threshold'"):
        Predictor.from_pretrained(saved[1], score_threshold=0.5)


def test_a_missing_device_is_refused(saved):
    with pytest.raises(
        ConfigError, match="device: expected auto, or one of this machine's devices, got quantum"
    ):
        Predictor.from_pretrained(saved[1], device="quantum")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.safetensors: expected a file, found none"):
        Predictor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("configs/ssdlite_voc.yaml", "configs/ssdlite_voc.yaml"),
        ("/data/voc/", "voc"),
        ("--weights=/home/me/runs/1/best.safetensors", "--weights=best.safetensors"),
        ("--weights=runs/1/best.safetensors", "--weights=runs/1/best.safetensors"),
        ("--data.image_size=[300,400]", "'--data.image_size=[300,400]'"),
        ("--data.classes=[a/c,/x/y]", "'--data.classes=[a/c,y]'"),
        ("--data.val={images: /a/b c, masks: /d/e}", "'--data.val={images: b c, masks: e}'"),
        ("https://host/path", "https://host/path"),
    ],
)
def test_the_stored_command_contains_no_absolute_path(argument, shown):
    assert command_line("train", [argument, "--seed=1"]) == f"mbv2det train {shown} --seed=1"


def test_the_folder_of_a_trained_run_contains_no_absolute_path(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    start = tmp_path / "start.safetensors"
    info = info_of({})
    save_weights(start, network_of(info).state_dict(), info)
    run_command(
        "train", config, "--trainer.max_epochs=1", f"--backbone.weights={start}",
        "--backbone.width_mult=0.1", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    run, folder = tmp_path / "runs/tiny/1", tmp_path / "folder"
    predictor = mbv2det.load(run / "best.safetensors")
    predictor.save_pretrained(folder)
    page = (folder / "README.md").read_text()
    metrics = json.loads((run / "metrics.json").read_text())["detection"]
    assert f"| detection | AP | {metrics['AP']:.3f} |" in page
    assert "    mbv2det train tiny.yaml --trainer.max_epochs=1 --backbone.weights=start" in page
    for name in ("README.md", "config.json"):
        assert str(tmp_path) not in (folder / name).read_text()
    assert str(tmp_path).encode() not in (folder / "model.safetensors").read_bytes()


# Backbones


FEATURES = (Feature("layer_7"), Feature("layer_18"))


def built_directly(state, output_stride, settings):
    """Returns the network itself, built without the toolkit's configuration."""
    state = {
        name.replace("heads.classification.", "classifier.").removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if name.startswith(("backbone.", "heads.classification."))
    }
    num_classes = 7 if "classifier.linear.bias" in state else None
    network = MobileNetV2(0.1, output_stride, num_classes, out_features=FEATURES, **settings)
    if num_classes is None:  # it ends with the last feature asked for
        state = {n: t for n, t in state.items() if not n.startswith("layers.layer_19.")}
    network.load_state_dict(state)
    return network.eval()


def as_checkpoint(path, state, info, folder):
    save_weights(folder / "w.safetensors", state, info)
    run_state = {f"model.{name}": tensor for name, tensor in state.items()}
    with safe_open(folder / "w.safetensors", framework="pt") as file:
        header = file.metadata()["mbv2det"]
    torch.save({"state_dict": run_state, "mbv2det": header}, path)


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize("heads", [CLASSIFICATION, DETECTION], ids=["classifier", "detector"])
def test_a_backbone_of_ours_equals_that_of_its_network(heads, suffix, output_stride, tmp_path):
    info = info_of(heads)
    state = network_of(info).state_dict()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "ckpt":
        as_checkpoint(path, state, info, tmp_path)
    else:
        save_weights(path, state, info)
    backbone = mbv2det.load_backbone(path, FEATURES, output_stride)
    expected = built_directly(state, output_stride, {"padding": "same", "norm_eps": 1e-3})
    x = random_images(*SIZE)
    with torch.no_grad():
        features, expected_features = backbone(x), expected(x)
        assert tuple(features) == FEATURES
        assert all(torch.equal(features[n], tensor) for n, tensor in expected_features.items())
        assert features[FEATURES[-1]].shape[-1] == SIZE[1] // output_stride
        if heads is CLASSIFICATION:
            assert torch.equal(backbone.classify(x), expected.classify(x))
        else:
            assert backbone.classifier is None


@pytest.mark.parametrize("output_stride", [32, 16])
def test_a_backbone_of_torchvision_equals_that_of_its_network(output_stride, tmp_path):
    reference = randomise(mobilenet_v2(width_mult=0.2, num_classes=7))
    torch.save(reference.state_dict(), tmp_path / "net.pth")
    # At a smaller output stride, every second cell has the value that it has at stride 32.
    layer_19 = Feature("layer_19", stride=32)
    backbone = mbv2det.load_backbone(tmp_path / "net.pth", [layer_19], output_stride)
    x = random_images(*SIZE)
    with torch.no_grad():
        features = reference.features(x)
        torch.testing.assert_close(backbone(x)[layer_19], features, rtol=1e-4, atol=1e-4)
        assert features.std() > 0.1
        if output_stride == 32:
            torch.testing.assert_close(backbone.classify(x), reference(x), rtol=1e-4, atol=1e-4)
    assert not backbone.training


@pytest.mark.parametrize(
    ("heads", "last"),
    [({}, "layer_19"), (DETECTION, "layer_19"), (SEGMENTATION, "layer_18")],
    ids=["backbone", "detector", "segmenter"],
)
def test_a_backbone_returns_the_last_feature_of_its_file(heads, last, tmp_path):
    info = info_of(heads)
    model = network_of(info)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), info)
    backbone = mbv2det.load_backbone(tmp_path / "w.safetensors")
    x = random_images(*SIZE)
    model.backbone.out_features = (Feature(last),)
    with torch.no_grad():
        (feature,), (expected,) = backbone(x).values(), model.backbone(x).values()
    assert backbone.out_features == (Feature(last),)
    # The model is laid out channels last, which adds up in another order.
    torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_the_file_lacks_is_named(tmp_path):
    info = info_of(SEGMENTATION)
    save_weights(tmp_path / "w.safetensors", network_of(info).state_dict(), info)
    with pytest.raises(MismatchError, match=r"5 missing; first: backbone\.layers\.layer_19\.conv"):
        mbv2det.load_backbone(tmp_path / "w.safetensors", [Feature("layer_19")])


def test_other_files_are_refused_as_backbones(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.pth: expected a file, found none"):
        mbv2det.load_backbone(tmp_path / "none.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="expected MobileNetV2, got no tensor"):
        mbv2det.load_backbone(tmp_path / "other.pth")
