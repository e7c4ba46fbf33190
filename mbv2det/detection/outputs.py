"""Raw outputs of the SSD head."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
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
