"""Boxes as offsets from anchors (SSD paper eq. 2, with the variances of its released code)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mbv2det.geometry import cxcywh_to_xyxy, xyxy_to_cxcywh

# exp() of a wild prediction must stay finite; 62.5 times the anchor is beyond any image.
_MAX_LOG_RATIO = math.log(1000 / 16)


@dataclass(frozen=True)
class BoxCoder:
    """Encodes a box as (dx, dy, dw, dh) relative to an anchor, and back.

    Attributes:
        weights: Multiply the offsets; (10, 10, 5, 5) are SSD's variances 0.1 and 0.2.
    """

    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)

    def encode(
        self, boxes: Float[Tensor, "*shape 4"], anchors: Float[Tensor, "*#shape 4"]
    ) -> Float[Tensor, "*shape 4"]:
        """Deltas of xyxy boxes that have positive width and height."""
        box, anchor = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(anchors)
        shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
        ratio = (box[..., 2:] / anchor[..., 2:]).log()
        return torch.cat([shift, ratio], dim=-1) * boxes.new_tensor(self.weights)

    def decode(
        self, deltas: Float[Tensor, "*shape 4"], anchors: Float[Tensor, "*#shape 4"]
    ) -> Float[Tensor, "*shape 4"]:
        """Xyxy boxes, in the frame of the anchors."""
        anchor = xyxy_to_cxcywh(anchors)
        delta = deltas / deltas.new_tensor(self.weights)
        centre = delta[..., :2] * anchor[..., 2:] + anchor[..., :2]
        sides = delta[..., 2:].clamp(max=_MAX_LOG_RATIO).exp() * anchor[..., 2:]
        return cxcywh_to_xyxy(torch.cat([centre, sides], dim=-1))
