"""Box coder: boxes as offsets from anchors (SSD paper, eq. 2; variances of its released code)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import box_convert

# Keeps exp() finite for any prediction; 62.5 times the side of an anchor exceeds any image.
_MAX_LOG_RATIO = math.log(1000 / 16)


@dataclass(frozen=True)
class BoxCoder:
    """Encodes boxes as deltas (dx, dy, dw, dh) from anchors, and decodes them.

    dx and dy are the shift of the centre in anchor widths and heights; dw and dh are the logarithms
    of the side ratios.

    Attributes:
        weights: Factors of the four deltas. (10, 10, 5, 5) are the inverses of SSD's variances 0.1
            and 0.2.
    """

    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)

    def encode(
        self, boxes: Float[Tensor, "*shape 4"], anchors: Float[Tensor, "*#shape 4"]
    ) -> Float[Tensor, "*shape 4"]:
        """Returns the deltas of boxes.

        Args:
            boxes: xyxy boxes with positive width and height.
            anchors: xyxy anchors in the same frame.
        """
        box = box_convert(boxes, "xyxy", "cxcywh")
        anchor = box_convert(anchors, "xyxy", "cxcywh")
        shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
        log_ratio = (box[..., 2:] / anchor[..., 2:]).log()
        return torch.cat([shift, log_ratio], dim=-1) * boxes.new_tensor(self.weights)

    def decode(
        self, deltas: Float[Tensor, "*shape 4"], anchors: Float[Tensor, "*#shape 4"]
    ) -> Float[Tensor, "*shape 4"]:
        """Returns the xyxy boxes of deltas, in the frame of the anchors and not clipped.

        Args:
            deltas: Any values; the sides of a box are limited to 62.5 times those of its anchor.
            anchors: xyxy anchors.
        """
        anchor = box_convert(anchors, "xyxy", "cxcywh")
        delta = deltas / deltas.new_tensor(self.weights)
        centre = delta[..., :2] * anchor[..., 2:] + anchor[..., :2]
        sides = delta[..., 2:].clamp(max=_MAX_LOG_RATIO).exp() * anchor[..., 2:]
        return box_convert(torch.cat([centre, sides], dim=-1), "cxcywh", "xyxy")
