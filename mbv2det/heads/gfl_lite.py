"""GFL-Lite: a light pyramid, a shared depthwise head, and the generalized focal loss.

- The pyramid reads the backbone at strides 8, 16 and 32 (for MobileNetV2 `layer_7`, `layer_14` and
  `layer_18`, which spares `layer_19`) and has a level at stride 64 as well.
- A backbone with a smaller output stride is also read on the grids of these strides, so that grids,
  points and the function of the weights stay the same.
- The head has the same weights on all levels and a batch norm for each (`SharedConv`): a block for
  both tasks, then one for the classes and one for the boxes.
- Each point predicts a score for each class, which is trained to be the quality of its box, and the
  distances to the four sides of the box as distributions.

Source: GFL (Li et al. 2020, arXiv:2006.04388) with the pyramid and the light head of PicoDet (Yu et
al. 2021, arXiv:2111.00902), section 3.2.
Differs: PicoDet has separate weights on each level and one pair of blocks for both tasks.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.backbones.feature import Feature, FeatureSpec, HeadFeatures
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.gfl_distillation import GFLDistillation
from mbv2det.detection.gfl_loss import GFLLoss
from mbv2det.detection.method import DetectionMethod
from mbv2det.detection.output_layers import box_output_layer
from mbv2det.detection.outputs import PointOutputs
from mbv2det.detection.point_assigner import PointAssigner
from mbv2det.detection.point_grid import describe_coverage, make_points
from mbv2det.detection.postprocess import PointPostprocess
from mbv2det.detection.quality_loss import quality_focal_loss, varifocal_loss
from mbv2det.errors import ConfigError
from mbv2det.heads.pyramid import LightPyramid
from mbv2det.heads.shared_conv import SharedConv
from mbv2det.labels import LabelMap
from mbv2det.model_config import EvalConfig, HeadConfig, carried, expect
from mbv2det.output_layer import OutputLayer

# Initial class score (focal loss, Lin et al. 2017, arXiv:1708.02002, section 4.1).
_INITIAL_SCORE = 0.01


class GFLLite(nn.Module):
    """The detection head: pyramid, and class scores and box distributions of every point.

    Args:
        feature_specs: Channels and strides of the backbone's features.
        input_features: The features that the pyramid reads, the finest first.
        num_classes: Number of classes K.
        channels: Channels of pyramid and head.
        kernel_size: Height and width of the depthwise kernels.
        bins: Number of bins of a distance; the largest distance is one cell less.
        padding: Padding rule of the convolutions.
        norm_eps: Epsilon of the batch norms.
        norm_momentum: Momentum of the batch norms, in PyTorch's sense.

    Attributes:
        input_features: The features that the pyramid reads.
        bins: Number of bins of a distance.
    """

    def __init__(
        self,
        feature_specs: Mapping[Feature, FeatureSpec],
        input_features: tuple[Feature, ...],
        num_classes: int,
        *,
        channels: int = 128,
        kernel_size: int = 3,
        bins: int = 8,
        padding: Padding = "symmetric",
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.03,
    ) -> None:
        super().__init__()
        self.input_features = input_features
        self.bins = bins
        settings: dict[str, Any] = {
            "padding": padding,
            "norm_eps": norm_eps,
            "norm_momentum": norm_momentum,
        }
        self.pyramid = LightPyramid(
            [feature_specs[feature].channels for feature in input_features],
            channels,
            kernel_size,
            partial(ConvBNAct, **settings),
        )
        shared = partial(SharedConv, channels, channels, num_levels=len(input_features) + 1)
        block = partial(_separable, partial(shared, **settings), channels, kernel_size)
        self.common_block, self.class_block, self.box_block = block(), block(), block()
        self.class_layer = conv2d(channels, num_classes, bias=True)
        self.box_layer = conv2d(channels, 4 * bins, bias=True)
        self._initialise()

    def forward(
        self, features: Mapping[Feature, Tensor], image_size: tuple[int, int]
    ) -> PointOutputs:
        """Returns the raw outputs of every point.

        Args:
            features: Feature maps of the backbone, `input_features` among them.
            image_size: (height, width) of the network input in pixels.
        """
        levels = self.pyramid([features[feature] for feature in self.input_features])
        logits, sides = [], []
        for level, x in enumerate(levels):
            common = _run(self.common_block, x, level)
            logits.append(_by_point(self.class_layer(_run(self.class_block, common, level))))
            sides.append(_by_point(self.box_layer(_run(self.box_block, common, level))))
        grids = tuple((x.shape[-2], x.shape[-1]) for x in levels)
        points, level_of_point = make_points(grids, image_size)
        return PointOutputs(
            logits=torch.cat(logits, dim=1),
            sides=torch.cat(sides, dim=1).unflatten(2, (4, self.bins)),
            points=points.to(levels[0].device),
            levels=level_of_point.to(levels[0].device),
        )

    def class_layers(self) -> list[nn.Conv2d]:
        """Returns the layer whose outputs are the class logits of the points."""
        return [self.class_layer]

    def _initialise(self) -> None:
        """Sets the weights with which training from scratch starts.

        | layer | initial values |
        |---|---|
        | convolutions | truncated normal 0.03, as in SSDLite |
        | class logits | bias: logit of a score of 0.01 |
        | box distributions | bias 0: all distances alike, so that boxes have seven cells a side |
        | batch norm | weight 1, bias 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.03, a=-0.06, b=0.06)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.class_layer.bias is not None
        nn.init.constant_(self.class_layer.bias, math.log(_INITIAL_SCORE / (1 - _INITIAL_SCORE)))


def _separable(shared: Any, channels: int, kernel_size: int) -> nn.ModuleList:
    """Returns a depthwise separable block whose convolutions all levels share."""
    return nn.ModuleList([shared(kernel_size, groups=channels), shared()])


def _run(block: nn.ModuleList, x: Tensor, level: int) -> Tensor:
    for layer in block:
        x = layer(x, level)
    return x


def _by_point(x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B P C"]:
    """Returns the outputs of one level in the order of its points."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


@dataclass(frozen=True, kw_only=True)
class GFLLiteConfig(DetectionMethod):
    """Settings of GFL-Lite, its loss and its postprocessing.

    Attributes:
        name: gfl_lite.
        channels: Channels of pyramid and head; `backbone.width_mult` does not change them.
        kernel_size: Height and width of the depthwise kernels.
        bins: Number of bins of a distance from a point to a side of its box, in cells: 8 for
            distances of 0 to 7 cells.
        class_loss: varifocal or quality_focal; both train the score to be the quality of the box.
        box_weight: Weight of the GIoU loss.
        distribution_weight: Weight of the distribution focal loss.
        aligned_from: Score times overlap of an object's best prediction from which points are
            assigned to it by the predictions (TAL) instead of by position (ATSS): 0 for always, 2
            for never.
    """

    name: Literal["gfl_lite"] = carried("gfl_lite")
    channels: int = carried(128)
    kernel_size: Literal[3, 5] = carried(3)
    bins: int = carried(8)
    class_loss: Literal["varifocal", "quality_focal"] = "varifocal"
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    aligned_from: float = 0.1

    def __post_init__(self) -> None:
        expect("heads.detection.channels", self.channels, self.channels >= 1, "at least 1")
        expect("heads.detection.bins", self.bins, self.bins >= 2, "at least 2")

    def features(self, available: HeadFeatures) -> tuple[Feature, ...]:
        """Returns the features at strides 8, 16 and 32: the last of each, without `layer_19`."""
        return (
            available.stride_8,
            replace(available.auxiliary, stride=16),
            replace(available.dense, stride=32),
        )

    def build(self, backbone: Backbone, width_mult: float, label_map: LabelMap) -> GFLLite:
        """Builds the network of the head, with initial weights."""
        return GFLLite(
            backbone.feature_specs,
            self.features(backbone.head_features),
            len(label_map),
            channels=self.channels,
            kernel_size=self.kernel_size,
            bins=self.bins,
            padding=backbone.padding,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
        )

    def build_loss(self, class_weights: tuple[float, ...] | None = None) -> GFLLoss:
        """Builds the loss that trains the head."""
        return GFLLoss(
            _CLASS_LOSSES[self.class_loss],
            PointAssigner(aligned_from=self.aligned_from),
            box_weight=self.box_weight,
            distribution_weight=self.distribution_weight,
            class_weights=class_weights,
        )

    def build_distillation(
        self, teacher: HeadConfig, label_map: LabelMap, temperature: float
    ) -> GFLDistillation:
        """Builds the loss that compares the head with that of a larger network, its teacher.

        Args:
            teacher: Settings of the teacher's head: GFL-Lite of any number of channels.
            label_map: Classes of both.
            temperature: Divisor of the logits of the distributions.

        Raises:
            ConfigError: If it is another head.
        """
        if not isinstance(teacher, GFLLiteConfig):
            raise ConfigError(
                f"expected a teacher with heads.detection.name gfl_lite, got {teacher.name}; train "
                "student and teacher with the same method"
            )
        return GFLDistillation(temperature, distribution_weight=self.distribution_weight)

    def build_postprocess(self, label_map: LabelMap, thresholds: EvalConfig) -> PointPostprocess:
        """Builds the postprocessing of the head's raw outputs."""
        return PointPostprocess(
            ClassSlots(len(label_map), "sigmoid", background=False),
            score_threshold=thresholds.score_threshold,
            nms_iou=thresholds.nms_iou,
            max_detections=thresholds.max_detections,
        )

    def build_output_layer(
        self, choice: str, label_map: LabelMap, thresholds: EvalConfig
    ) -> OutputLayer:
        """The last layer of an exported network: NMS inside, or decoded boxes."""
        return box_output_layer(choice, self.build_postprocess(label_map, thresholds))

    def raw_tensor(self, outputs: PointOutputs) -> Float[Tensor, "B P values"]:
        """Returns the class logits followed by the logits of the distributions."""
        return torch.cat([outputs.logits, outputs.sides.flatten(2)], dim=-1)

    def describe_coverage(self, outputs: PointOutputs, boxes: Float[np.ndarray, "N 4"]) -> str:
        """Returns a line with the share of objects that contain a point."""
        return describe_coverage(boxes, outputs.points)


_CLASS_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "varifocal": varifocal_loss,
    "quality_focal": quality_focal_loss,
}
