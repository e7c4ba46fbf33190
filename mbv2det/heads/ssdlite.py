"""SSDLite (MobileNetV2 paper section 6.2): SSD's extra layers and predictors, depthwise separable.

- Level 0 reads the backbone at stride 16, level 1 at stride 32 (of MobileNetV2 the expansion inside
  `layer_15`, and `layer_19`); four extra blocks each halve the grid again. A backbone of a smaller
  output stride is read at the positions of those strides, so that it gives the same grids, anchors
  and meaning of the weights.
- Every level has predictors of its own: depthwise 3x3, batch norm, ReLU6, then 1x1 with bias.
- `lite=False` gives full SSD: one plain 3x3 convolution wherever SSDLite separates.

Source: TensorFlow object_detection `ssd_mobilenet_v2_feature_extractor.py`,
`feature_map_generators.py`, `convolutional_box_predictor.py`.
"""

import math
from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.features import FeatureSpec, Taps
from mbv2det.backbones.layers import ConvBNAct, Padding, conv2d
from mbv2det.detection.anchors import AnchorSpec, make_anchors
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.outputs import SSDOutputs

_EXTRA_CHANNELS = (512, 256, 256, 128)
_MIN_EXTRA_CHANNELS = 16


class SSDLite(nn.Module):
    """The detection head: extra feature levels, and a class and a box predictor on each.

    Args:
        feature_specs: What the backbone declares.
        slots: Layout of the class logits.
        taps: Names of the features read: the backbone's.
        anchors: Shapes of the anchors.
        lite: False for full SSD.
        width_mult: Multiplies the channels of the extra levels.
        padding: Border rule of the convolutions.
        norm_eps: Of batch norm.
        norm_momentum: Of batch norm.
        prior: Score that the class logits of a sigmoid start at, so that a sea of background does
            not drown the first steps (focal loss paper, section 3.3). None starts at zero.
    """

    def __init__(
        self,
        feature_specs: Mapping[str, FeatureSpec],
        slots: ClassSlots,
        *,
        taps: Taps,
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
        self.sources = taps.detection
        self.anchors = anchors
        conv = partial(ConvBNAct, padding=padding, norm_eps=norm_eps, norm_momentum=norm_momentum)

        def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            if not lite:
                return [conv(inputs, outputs, 3, stride=stride)]
            return [conv(inputs, inputs, 3, stride=stride, groups=inputs), conv(inputs, outputs)]

        def predictor(inputs: int, outputs: int) -> nn.Module:
            if not lite:
                return conv2d(inputs, outputs, 3, bias=True, padding=padding)
            return nn.Sequential(
                conv(inputs, inputs, 3, groups=inputs), conv2d(inputs, outputs, bias=True)
            )

        channels = [feature_specs[name].channels for name in self.sources]
        self.extras = nn.ModuleList()
        for base in _EXTRA_CHANNELS:
            extra = max(int(base * width_mult), _MIN_EXTRA_CHANNELS)
            squeezed = conv(channels[-1], extra // 2)
            self.extras.append(nn.Sequential(squeezed, *separable(extra // 2, extra, 2)))
            channels.append(extra)
        per_cell = anchors.per_cell(len(channels))
        self.class_predictors = nn.ModuleList(
            predictor(c, n * slots.num_slots) for c, n in zip(channels, per_cell, strict=True)
        )
        self.box_predictors = nn.ModuleList(
            predictor(c, n * 4) for c, n in zip(channels, per_cell, strict=True)
        )
        self._initialise(prior)

    def forward(self, features: Mapping[str, Tensor], image_size: tuple[int, int]) -> SSDOutputs:
        """Raw outputs of every anchor.

        Args:
            features: By name, `sources` among them.
            image_size: (H, W) of the network input.
        """
        levels = [features[name] for name in self.sources]
        for extra in self.extras:
            levels.append(extra(levels[-1]))
        grids = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        return SSDOutputs(
            logits=_by_anchor(self.class_predictors, levels, self.slots.num_slots),
            deltas=_by_anchor(self.box_predictors, levels, 4),
            anchors=make_anchors(self.anchors, grids, image_size).to(levels[0].device),
        )

    def class_layers(self) -> list[nn.Conv2d]:
        """Layers whose outputs are the class logits of each anchor."""
        return [
            [module for module in predictor.modules() if isinstance(module, nn.Conv2d)][-1]
            for predictor in self.class_predictors
        ]

    def _initialise(self, prior: float | None) -> None:
        """Truncated normal 0.03 convolutions, zero biases; class biases at the prior's logit."""
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


def _by_anchor(
    predictors: nn.ModuleList, levels: list[Tensor], width: int
) -> Float[Tensor, "B A {width}"]:
    """Runs each level's predictor and lays the results out in the order of the anchors."""
    found = []
    for predictor, level in zip(predictors, levels, strict=True):
        cells = predictor(level).permute(0, 2, 3, 1)  # (B, h, w, anchors of a cell * width)
        found.append(cells.reshape(level.shape[0], -1, width))
    return torch.cat(found, dim=1)
