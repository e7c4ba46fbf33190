"""Raw outputs of the detection heads."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass
class SSDOutputs:
    """Raw outputs of the SSD head for a batch: all that loss and postprocess read.

    Attributes:
        logits: Class logits of each anchor, in the layout of the head's `ClassSlots`.
        deltas: Box deltas of each anchor, as the head's `BoxCoder` encodes them.
        anchors: xyxy anchors in pixels of the network input.
    """

    logits: Float[Tensor, "B A slots"]
    deltas: Float[Tensor, "B A 4"]
    anchors: Float[Tensor, "A 4"]


torch.export.register_dataclass(SSDOutputs, serialized_type_name="mbv2det.SSDOutputs")


@dataclass
class PointOutputs:
    """Raw outputs of a head of dense points for a batch: all that loss and postprocess read.

    Attributes:
        logits: Class logits of each point.
        sides: Logits of the distribution of the distance from each point to each side of its box:
            left, top, right, bottom; bin i is a distance of i cells.
        points: Centre x, y and width and height of each point's cell, in pixels of the network
            input.
        levels: Level of each point, ascending from 0.
    """

    logits: Float[Tensor, "B P K"]
    sides: Float[Tensor, "B P 4 bins"]
    points: Float[Tensor, "P 4"]
    levels: Int64[Tensor, " P"]


torch.export.register_dataclass(PointOutputs, serialized_type_name="mbv2det.PointOutputs")
