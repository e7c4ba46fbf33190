"""The models of the MobileNetV2 paper with their published sizes and costs, table by table.

Sources: Sandler et al. 2018, arXiv:1801.04381, and the README of TensorFlow's slim. Detectors and
segmenters are defined by the command that trains them: each is a configuration of this toolkit and
needs no other code.
"""

from dataclasses import dataclass

import torch
from torch import nn

from mbv2det.build import build_backbone, build_model
from mbv2det.cli.settings import SettingsParser
from mbv2det.config import Config
from mbv2det.counting import Counts, count
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.model_config import BackboneConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.segmentation.multi_scale_flip import scaled_size

_IMAGENET_CLASSES = 1000
_LABELS = {
    "detection": LabelMap.of_masks([f"class {i}" for i in range(80)]),
    "segmentation": LabelMap.of_masks(with_background(VOC_NAMES)),
}


@dataclass(frozen=True)
class Classifier:
    """A backbone with a classifier of ImageNet's 1000 classes.

    Attributes:
        backbone: Settings of the backbone.
        size: Height and width of the image, in pixels.
    """

    backbone: BackboneConfig
    size: int = 224

    def count(self) -> Counts:
        """Builds the classifier on the meta device and counts it on one image."""
        with torch.device("meta"):
            net = build_backbone(self.backbone, _IMAGENET_CLASSES).eval()
        image = torch.empty(1, 3, self.size, self.size, device="meta")
        return count(net, lambda: net.classify(image))


@dataclass(frozen=True)
class Trained:
    """A model that the train command trains.

    Attributes:
        settings: Arguments of the train command.
        evaluation: Additional arguments of the eval command, if the published multiply-adds are
            those of an evaluation with other settings than in training; else empty.
        heads_only: Whether the heads are counted without the backbone.
    """

    settings: str
    evaluation: str = ""
    heads_only: bool = False

    @property
    def command(self) -> str:
        """The command that trains the model, or evaluates it if another row trains it."""
        if self.evaluation:
            return f"mbv2det eval {self.settings} {self.evaluation} --weights=FILE"
        return f"mbv2det train {self.settings}"

    def count(self) -> Counts:
        """Builds the model on the meta device and counts every pass that evaluates one image."""
        arguments = f"{self.settings} {self.evaluation}".split()
        config = SettingsParser("").parse(arguments).config
        preprocess = PreprocessSpec(config.data.size, config.data.resize)
        with torch.device("meta"):
            model = build_model(config.model(), preprocess, _LABELS).eval()
        part: nn.Module = model.heads if self.heads_only else model
        return count(part, lambda: [model(view) for view in _views(config)])


def _views(config: Config) -> list[torch.Tensor]:
    """Returns the image at every scale of `eval.scales`, with its mirror image if `eval.flip`."""
    sizes = [scaled_size(config.data.size, scale) for scale in config.eval.scales]
    return [torch.empty(1 + config.eval.flip, 3, *size, device="meta") for size in sizes]


@dataclass(frozen=True)
class Row:
    """A model and its published figures.

    Attributes:
        name: Name of the model.
        model: The model, which can be built and counted.
        parameters: Published number of parameters, with M for a million.
        multiply_adds: Published multiply-adds of one image, with M for a million or B for a
            billion.
        note: Reason why the counted figures differ from the published ones; empty if they do not.
    """

    name: str
    model: Classifier | Trained
    parameters: str
    multiply_adds: str
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """Models whose published figures follow the same rules of counting.

    Attributes:
        title: Heading of the table.
        rows: The models.
        source: Publication of the figures in one word, the heading of their columns.
        without_norms: Whether the published parameters exclude those of batch norms.
        padded: Whether the published multiply-adds include the padding of atrous convolutions.
        remark: Explanation that concerns all rows.
    """

    title: str
    rows: tuple[Row, ...]
    source: str = "paper"
    without_norms: bool = False
    padded: bool = False
    remark: str = ""


_V1 = "--backbone.name=mobilenet_v1"
_RESNET = "--backbone.name=resnet101"
_COCO = "ssdlite_coco"
_VOC = "deeplabv3_voc_paper"
_ASPP = "--heads.segmentation.aspp=full"
_MF = "--backbone.output_stride=8 --eval.scales=[0.5,0.75,1.0,1.25,1.5,1.75] --eval.flip=true"

_CUT = "slim's README has 3.47M, as counted here; the paper truncates it to one decimal."
_NO_CODE = (
    "slim's README has 6.06M and 582M, as counted here; no released code gives the paper's figures."
)
_FLOPS = (
    "The published figure is twice our multiply-adds: it counts a multiplication and an addition "
    "as two operations, while the figure of SSD, above it, counts them as one."
)
_OTHER_RATES = (
    "Atrous rates of 12, 18 and 24 would give 940.3B. At output stride 8 DeepLabv3 has the rates "
    "12, 24 and 36, which the other rows confirm."
)
_OTHER_RESNET = (
    "Ours is torchvision's ResNet. TensorFlow's has three 3x3 convolutions in the stem instead of "
    "one 7x7, which makes 58,164,437 parameters; it has its strides in the last block of a stage "
    "instead of the first; and it multiplies the atrous rates of the last stage by 1, 2 and 4. "
    "Padded, that makes 80.8B and 4868.9B."
)

_TABLE_4 = PublishedTable(
    "Table 4: ImageNet, 224 pixels",
    (
        Row(
            "MobileNetV1",
            Classifier(BackboneConfig(name="mobilenet_v1")),
            "4.2M",
            "575M",
            "MobileNetV1's own paper (arXiv:1704.04861) has 569M, as counted here.",
        ),
        Row("MobileNetV2", Classifier(BackboneConfig()), "3.4M", "300M", _CUT),
        Row(
            "MobileNetV2 1.4", Classifier(BackboneConfig(width_mult=1.4)), "6.9M", "585M", _NO_CODE
        ),
    ),
    without_norms=True,
)
_TABLE_5 = PublishedTable(
    "Table 5: heads on MobileNetV2 without the backbone, 320 pixels, 80 classes",
    (
        Row(
            "SSD",
            Trained(f"{_COCO} --heads.detection.name=ssd", heads_only=True),
            "14.8M",
            "1.25B",
        ),
        Row("SSDLite", Trained(_COCO, heads_only=True), "2.1M", "0.35B", _FLOPS),
    ),
)
_TABLE_6 = PublishedTable(
    "Table 6: COCO, 320 pixels, 80 classes",
    (
        Row("MobileNetV1 SSDLite", Trained(f"{_COCO} {_V1}"), "5.1M", "1.3B"),
        Row("MobileNetV2 SSDLite", Trained(_COCO), "4.3M", "0.8B"),
    ),
)
_TABLE_7 = PublishedTable(
    "Table 7: Pascal VOC, DeepLabv3, 513 pixels",
    (
        Row("MobileNetV1 ASPP 16", Trained(f"{_VOC} {_V1} {_ASPP}"), "11.15M", "14.25B"),
        Row(
            "MobileNetV1 ASPP 8 MF",
            Trained(f"{_VOC} {_V1} {_ASPP}", _MF),
            "11.15M",
            "941.9B",
            _OTHER_RATES,
        ),
        Row("MobileNetV2 ASPP 16", Trained(f"{_VOC} {_ASPP}"), "4.52M", "5.8B"),
        Row("MobileNetV2 ASPP 8 MF", Trained(f"{_VOC} {_ASPP}", _MF), "4.52M", "387B"),
        Row("MobileNetV2 16", Trained(_VOC), "2.11M", "2.75B"),
        Row("MobileNetV2 8 MF", Trained(_VOC, _MF), "2.11M", "152.6B"),
        Row(
            "ResNet-101 ASPP 16",
            Trained(f"{_VOC} {_RESNET} {_ASPP}"),
            "58.16M",
            "81.0B",
            _OTHER_RESNET,
        ),
        Row(
            "ResNet-101 ASPP 8 MF",
            Trained(f"{_VOC} {_RESNET} {_ASPP}", _MF),
            "58.16M",
            "4870.6B",
            _OTHER_RESNET,
        ),
    ),
    padded=True,
    remark="16, 8: output stride. MF: evaluated at six scales, each with its mirror image. padded: "
    "TensorFlow runs an atrous convolution of rate r on height and width rounded up to multiples "
    "of r.",
)

# slim's README: width multiplier, parameters, multiply-adds by image size.
_WIDTHS = (
    (1.4, "6.06M", {224: "582M"}),
    (1.3, "5.34M", {224: "509M"}),
    (1.0, "3.47M", {224: "300M", 192: "221M", 160: "154M", 128: "99M", 96: "56M"}),
    (0.75, "2.61M", {224: "209M", 192: "153M", 160: "107M", 128: "69M", 96: "39M"}),
    (0.5, "1.95M", {224: "97M", 192: "71M", 160: "50M", 128: "32M", 96: "18M"}),
    (0.35, "1.66M", {224: "59M", 192: "43M", 160: "30M", 128: "20M", 96: "11M"}),
)
_TABLE_OF_WIDTHS = PublishedTable(
    "slim's README: ImageNet, MobileNetV2 by width and resolution",
    tuple(
        Row(
            f"{width} at {size}", Classifier(BackboneConfig(width_mult=width), size), weights, madds
        )
        for width, weights, by_size in _WIDTHS
        for size, madds in by_size.items()
    ),
    source="README",
    without_norms=True,
    remark="The multiply-adds in the README are ours, truncated to whole millions.",
)

TABLES = {
    "4": _TABLE_4,
    "5": _TABLE_5,
    "6": _TABLE_6,
    "7": _TABLE_7,
    "widths": _TABLE_OF_WIDTHS,
}
