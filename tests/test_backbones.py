"""What holds for every backbone: all heads run on it, at every output stride."""

from functools import partial

import pytest
import torch
from networks import random_images, randomise
from runs import ROOT
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from mbv2det.backbones import MobileNetV1
from mbv2det.backbones.resnet import ResNet
from mbv2det.build import build_model
from mbv2det.cli.settings import SettingsParser
from mbv2det.counting import count_parameters
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.gfl_lite import GFLLiteConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.heads.ssdlite import SSDLite, SSDLiteConfig
from mbv2det.labels import VOC_NAMES, LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONES = [
    BackboneConfig(width_mult=0.35),
    BackboneConfig(name="mobilenet_v1", width_mult=0.25),
    BackboneConfig(name="resnet50"),
]
DEEPLAB = partial(DeepLabV3Config, channels=32)
HEADS = {
    "ssdlite": {"detection": SSDLiteConfig()},
    "ssd": {"detection": SSDLiteConfig(name="ssd")},
    "gfl_lite": {"detection": GFLLiteConfig(channels=32)},
    "gfl_lite_5x5": {"detection": GFLLiteConfig(channels=32, kernel_size=5)},
    "pool": {"segmentation": DEEPLAB()},
    "full": {"segmentation": DEEPLAB(aspp="full")},
    "decoder": {"segmentation": DEEPLAB(decoder=True)},
    "auxiliary": {"segmentation": DEEPLAB(auxiliary_weight=0.4)},
    "light": {"segmentation": DeepLabV3LightConfig(channels=32)},
    "lraspp": {"segmentation": LRASPPConfig()},
    "classifier": {"classification": ClassifierConfig()},
}
LABEL_MAPS = {
    "detection": LabelMap.of_masks([str(i) for i in range(80)]),
    "segmentation": LabelMap.of_masks(("background", *VOC_NAMES)),
}
FEW_LABEL_MAPS = dict.fromkeys(
    (*LABEL_MAPS, "classification"), LabelMap.of_masks(("background", "car", "dog"))
)
SIZE = (65, 96)


class ShallowResNet(ResNet):
    """One block in each undilated stage and two in each dilated one, to test strides and rates."""

    network = staticmethod(partial(TorchvisionResNet, Bottleneck, [1, 1, 2, 2], width_per_group=16))


KINDS = [
    pytest.param(partial(MobileNetV1, 0.25), "symmetric", id="v1-symmetric"),
    pytest.param(partial(MobileNetV1, 0.25, padding="same"), "same", id="v1-same"),
    pytest.param(ShallowResNet, "symmetric", id="resnet"),
]


def build(backbone, heads, label_maps):
    return build_model(ModelConfig(backbone, heads), PreprocessSpec(SIZE, "stretch"), label_maps)


# Heads


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: b.name)
def test_every_head_runs_on_every_backbone(backbone, head):
    torch.manual_seed(0)
    model = build(backbone, HEADS[head], FEW_LABEL_MAPS).eval()
    with torch.no_grad():
        (outputs,) = model(torch.randint(0, 256, (2, 3, *SIZE))).values()
    tensors = [outputs] if isinstance(outputs, torch.Tensor) else vars(outputs).values()
    for tensor in tensors:
        assert tensor is None or tensor.isfinite().all()


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("mobilenet_v1", SSDLiteConfig(), 5_100_661),
        ("mobilenet_v1", DeepLabV3Config(aspp="full"), 11_145_301),
        ("resnet101", DeepLabV3Config(aspp="full"), 58_040_661),
    ],
)
def test_parameters_of_the_networks_that_the_paper_compares_with(name, head, expected):
    task = "detection" if isinstance(head, SSDLiteConfig) else "segmentation"
    with torch.device("meta"):
        model = build(BackboneConfig(name=name), {task: head}, LABEL_MAPS)
    assert count_parameters(model) == expected


# Dilation


@pytest.mark.parametrize(("kind", "padding"), KINDS)
@pytest.mark.parametrize("size", [(96, 128), (97, 129), (90, 131)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_ssdlite_gives_the_same_outputs_on_a_dilated_backbone(output_stride, size, kind, padding):
    slots = ClassSlots(3, "softmax", background=True)
    outputs = []
    for stride in (output_stride, 32):
        net = randomise(kind(output_stride=stride, out_features=detection_features(kind)), gain=1.2)
        settings = {"head_features": net.head_features, "width_mult": 0.25, "padding": padding}
        head = randomise(SSDLite(net.feature_specs, slots, **settings), seed=2)
        with torch.no_grad():
            features = net(random_images(*size, count=2))
            outputs.append((features, head(features, size)))
    (dilated_features, dilated), (strided_features, strided) = outputs
    for feature, expected in strided_features.items():
        assert expected.std() > 0.1  # the signal has not died out
        # The same float32 products, added in another order, over up to fourteen layers.
        torch.testing.assert_close(dilated_features[feature], expected, rtol=1e-5, atol=2e-5)
    # As for the features, through seven more layers.
    torch.testing.assert_close(dilated.logits, strided.logits, rtol=1e-5, atol=5e-5)
    torch.testing.assert_close(dilated.deltas, strided.deltas, rtol=1e-5, atol=5e-5)
    assert torch.equal(dilated.anchors, strided.anchors)


def detection_features(kind):
    features = getattr(kind, "func", kind).head_features
    return features.stride_16, features.stride_32


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet50", "width_mult": 0.5}, "width_mult: expected 1.0 for resnet50, got 0.5"),
        ({"name": "resnet101", "padding": "same"}, "padding: expected symmetric for resnet101"),
        (
            {"name": "mobilenet_v1", "scale_last_layer": True},
            "scale_last_layer: expected False for mobilenet_v1, got True",
        ),
        (
            {"name": "mobilenet_v1", "bottleneck": "relu6"},
            "bottleneck: expected linear for mobilenet_v1, got relu6",
        ),
    ],
)
def test_a_setting_that_a_backbone_does_not_have_is_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"^backbone\.{message}"):
        BackboneConfig(**settings)


def test_such_a_setting_is_refused_on_the_command_line():
    config = str(ROOT / "configs/ssdlite_coco.yaml")
    with pytest.raises(ConfigError, match=r"width_mult: expected 1\.0 for resnet50, got 0\.5"):
        SettingsParser("").parse([config, "--backbone.name=resnet50", "--backbone.width_mult=0.5"])
