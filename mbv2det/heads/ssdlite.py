"""SSDLite (MobileNetV2 paper section 6.2): SSD's extra layers and predictors, depthwise separable.

- Level 0 reads the backbone at stride 16 and level 1 at stride 32 (for MobileNetV2 the expansion
  inside `layer_15`, and `layer_19`). Four extra blocks halve the grid one after the other.
- A backbone with a smaller output stride is also read on the grids of these strides, so that grids,
  anchors and the function of the weights stay the same.
- Every level has its own predictors: depthwise 3x3, batch norm, ReLU6, then 1x1 with bias.
- `lite=False` gives full SSD: a plain 3x3 convolution in place of each depthwise separable one.

Source: TensorFlow object_detection `ssd_mobilenet_v2_feature_extractor.py`,
`feature_map_generators.py`, `convolutional_box_predictor.py`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d
from mbv2det.detection.anchors import AnchorSpec, describe_coverage, make_anchors
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.loss import SSDLoss, focal_loss, sigmoid_loss, softmax_loss
from mbv2det.detection.matcher import Matcher
from mbv2det.detection.method import DetectionMethod
from mbv2det.detection.output_layers import box_output_layer
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.detection.postprocess import SSDPostprocess
from mbv2det.detection.ssd_distillation import (
    SSDDistillation,
    focal_distillation,
    sigmoid_distillation,
    softmax_distillation,
)
from mbv2det.errors import ConfigError
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig, carried
from mbv2det.output_layer import OutputLayer

_EXTRA_CHANNELS = (512, 256, 256, 128)
_MIN_EXTRA_CHANNELS = 16


class SSDLite(nn.Module):
    """The detection head: extra feature levels, and a class and a box predictor on every level.

    Args:
        feature_specs: Channels and strides of the backbone's features.
        slots: Layout of the class logits.
        head_features: The backbone's features for each kind of head.
        anchors: Scales and aspect ratios of the anchors.
        lite: Whether convolutions are depthwise separable; False for full SSD.
        width_mult: Multiplier of the channels of the extra levels.
        padding: Padding rule of the convolutions.
        norm_eps: Epsilon of the batch norms.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.
        prior: Initial score of the sigmoid class logits, in 0..1. A low score prevents the many
            background anchors from dominating the loss of the first steps (focal loss paper,
            section 3.3). None for initial logits of about zero.

    Attributes:
        slots: Layout of the class logits.
        anchors: Scales and aspect ratios of the anchors.
        input_features: The features that levels 0 and 1 read.
    """

    def __init__(
        self,
        feature_specs: Mapping[Feature, FeatureSpec],
        slots: ClassSlots,
        *,
        head_features: HeadFeatures,
        anchors: AnchorSpec = AnchorSpec(),
        lite: bool = True,
        width_mult: float = 1.0,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.03,
        prior: float | None = None,
    ) -> None:
        super().__init__()
        self.slots = slots
        self.input_features = (head_features.stride_16, head_features.stride_32)
        self.anchors = anchors
        conv = partial(ConvBNAct, padding=padding, norm_eps=norm_eps, norm_momentum=norm_momentum)
        channels = [feature_specs[feature].channels for feature in self.input_features]
        self.extras = nn.ModuleList()
        for base_channels in _EXTRA_CHANNELS:
            extra = max(int(base_channels * width_mult), _MIN_EXTRA_CHANNELS)
            self.extras.append(_extra_level(channels[-1], extra, lite, conv))
            channels.append(extra)
        per_cell = anchors.per_cell(len(channels))
        self.class_predictors = nn.ModuleList(
            _predictor(c, n * slots.num_slots, lite, conv, padding)
            for c, n in zip(channels, per_cell, strict=True)
        )
        self.box_predictors = nn.ModuleList(
            _predictor(c, n * 4, lite, conv, padding)
            for c, n in zip(channels, per_cell, strict=True)
        )
        self._initialise(prior)

    def forward(
        self, features: Mapping[Feature, Tensor], image_size: tuple[int, int]
    ) -> SSDOutputs:
        """Returns the raw outputs of every anchor.

        Args:
            features: Feature maps of the backbone, `input_features` among them.
            image_size: (height, width) of the network input in pixels.
        """
        levels = [features[feature] for feature in self.input_features]
        for extra in self.extras:
            levels.append(extra(levels[-1]))
        grids = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        return SSDOutputs(
            logits=_by_anchor(self.class_predictors, levels, self.slots.num_slots),
            deltas=_by_anchor(self.box_predictors, levels, 4),
            anchors=make_anchors(self.anchors, grids, image_size).to(levels[0].device),
        )

    def class_layers(self) -> list[nn.Conv2d]:
        """Returns the layers whose outputs are the class logits of the anchors, by level."""
        return [
            [module for module in predictor.modules() if isinstance(module, nn.Conv2d)][-1]
            for predictor in self.class_predictors
        ]

    def _initialise(self, prior: float | None) -> None:
        """Sets the weights with which training from scratch starts.

        | layer | initial values |
        |---|---|
        | convolutions | truncated normal 0.03, bias 0 |
        | class logits, if there is a prior | bias: logit of the prior (not for background) |
        | batch norm | weight 1, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.03, a=-0.06, b=0.06)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if prior is not None:
            for layer in self.class_layers():
                assert layer.bias is not None
                by_anchor = layer.bias.data.view(-1, self.slots.num_slots)
                by_anchor[:, int(self.slots.background) :] = math.log(prior / (1 - prior))


def _extra_level(
    in_channels: int, out_channels: int, lite: bool, conv: Callable[..., ConvBNAct]
) -> nn.Sequential:
    """Returns the block of an extra level: 1x1 to half of the channels, then 3x3 with stride 2."""
    squeezed = out_channels // 2
    squeeze = conv(in_channels, squeezed)
    if not lite:
        return nn.Sequential(squeeze, conv(squeezed, out_channels, 3, stride=2))
    return nn.Sequential(
        squeeze,
        conv(squeezed, squeezed, 3, stride=2, groups=squeezed),
        conv(squeezed, out_channels),
    )


def _predictor(
    in_channels: int,
    out_channels: int,
    lite: bool,
    conv: Callable[..., ConvBNAct],
    padding: Padding,
) -> nn.Module:
    """Returns the predictor of one level: a 3x3 convolution, depthwise separable if `lite`."""
    if not lite:
        return conv2d(in_channels, out_channels, 3, bias=True, padding=padding)
    return nn.Sequential(
        conv(in_channels, in_channels, 3, groups=in_channels),
        conv2d(in_channels, out_channels, bias=True),
    )


def _by_anchor(
    predictors: nn.ModuleList, levels: list[Tensor], width: int
) -> Float[Tensor, "B A {width}"]:
    """Runs the predictor of every level and returns the results in the order of the anchors."""
    by_level = []
    for predictor, level in zip(predictors, levels, strict=True):
        cells = predictor(level).permute(0, 2, 3, 1)  # (B, h, w, anchors of a cell * width)
        by_level.append(cells.reshape(level.shape[0], -1, width))
    return torch.cat(by_level, dim=1)


# Initial score of sigmoid class logits (focal loss paper, section 5.1).
_INITIAL_SCORE = 0.01


@dataclass(frozen=True, kw_only=True)
class SSDLiteConfig(DetectionMethod):
    """Settings of SSDLite, its loss and its postprocessing.

    Attributes:
        name: ssdlite, or ssd with plain 3x3 convolutions.
        class_loss: softmax with hard negative mining at 3:1; sigmoid with the same mining and an
            independent score for each class and the background, as TensorFlow's weights were
            trained; or focal (sigmoid focal loss over all anchors).
        box_weight: Weight of the box loss.
        min_scale: Scale of the anchors of the lowest level, as a fraction of the shorter side.
        max_scale: Scale of the anchors of the highest level.
    """

    name: Literal["ssdlite", "ssd"] = carried("ssdlite")
    class_loss: Literal["softmax", "sigmoid", "focal"] = carried("softmax")
    box_weight: float = 1.0
    min_scale: float = carried(0.2)
    max_scale: float = carried(0.95)
    norm_eps: float = carried(1e-3)

    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the features of the first two levels."""
        return available.stride_16, available.stride_32

    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> SSDLite:
        """Builds the network of the head, with initial weights."""
        return SSDLite(
            backbone.feature_specs,
            self._class_slots(label_map),
            head_features=backbone.head_features,
            anchors=AnchorSpec(self.min_scale, self.max_scale),
            lite=self.name == "ssdlite",
            width_mult=width_mult,
            padding=backbone.padding,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
            prior=None if self.class_loss == "softmax" else _INITIAL_SCORE,
        )

    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> SSDLoss:
        """Builds the loss that trains the head."""
        return SSDLoss(
            _CLASS_LOSSES[self.class_loss],
            box_weight=self.box_weight,
            class_weights=class_weights,
        )

    def build_distillation(
        self, teacher: HeadConfig, label_map: LabelMap, temperature: float
    ) -> SSDDistillation:
        """Builds the loss that compares the head with that of a larger network, its teacher.

        Args:
            teacher: Settings of the teacher's head: SSDLite or SSD with the same class loss.
            label_map: Classes of both.
            temperature: Divisor of the logits of softmax.

        Raises:
            ConfigError: If it is another head.
        """
        if not isinstance(teacher, SSDLiteConfig):
            raise ConfigError(
                f"expected a teacher with heads.detection.name ssdlite or ssd, got {teacher.name}; "
                "train student and teacher with the same method"
            )
        if teacher.class_loss != self.class_loss:
            raise ConfigError(
                f"expected a teacher with heads.detection.class_loss {self.class_loss}, as the "
                f"student's, got {teacher.class_loss}; train both with the same"
            )
        return SSDDistillation(
            _CLASS_DISTILLATIONS[self.class_loss],
            self._class_slots(label_map),
            temperature,
            box_weight=self.box_weight,
        )

    def build_postprocess(self, label_map: LabelMap, thresholds: EvalConfig) -> SSDPostprocess:
        """Builds the postprocessing of the head's raw outputs."""
        return SSDPostprocess(
            self._class_slots(label_map),
            score_threshold=thresholds.score_threshold,
            nms_iou=thresholds.nms_iou,
            max_detections=thresholds.max_detections,
        )

    def build_output_layer(
        self, choice: str, label_map: LabelMap, thresholds: EvalConfig
    ) -> OutputLayer:
        """The last layer of an exported network: NMS inside, or decoded boxes."""
        return box_output_layer(choice, self.build_postprocess(label_map, thresholds))

    def logit_names(self, label_map: LabelMap) -> tuple[str, ...]:
        """Returns the name of the class of each class logit; background comes first."""
        return (BACKGROUND, *label_map.names) if self._has_background else label_map.names

    def raw_tensor(self, outputs: SSDOutputs) -> Float[Tensor, "B A values"]:
        """Returns the class logits followed by the deltas."""
        return torch.cat([outputs.logits, outputs.deltas], dim=-1)

    def describe_coverage(self, outputs: SSDOutputs, boxes: Float[np.ndarray, "N 4"]) -> str:
        """Returns a line with the share of objects that overlap an anchor enough."""
        return describe_coverage(boxes, outputs.anchors, Matcher().threshold)

    @property
    def _has_background(self) -> bool:
        return self.class_loss != "focal"

    def _class_slots(self, label_map: LabelMap) -> ClassSlots:
        activation: Literal["softmax", "sigmoid"]
        activation = "softmax" if self.class_loss == "softmax" else "sigmoid"
        return ClassSlots(len(label_map), activation, background=self._has_background)


_CLASS_LOSSES = {"softmax": softmax_loss, "sigmoid": sigmoid_loss, "focal": focal_loss}
_CLASS_DISTILLATIONS = {
    "softmax": softmax_distillation,
    "sigmoid": sigmoid_distillation,
    "focal": focal_distillation,
}
