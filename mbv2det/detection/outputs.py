"""What the SSD head says about a batch, before anything is decoded."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class SSDOutputs:
    """Raw outputs; loss and postprocess read nothing else.

    Attributes:
        logits: Class logits, laid out as the head's `ClassSlots` say.
        deltas: Boxes as the head's `BoxCoder` encodes them.
        anchors: xyxy in pixels of the network input.
    """

    logits: Float[Tensor, "B A slots"]
    deltas: Float[Tensor, "B A 4"]
    anchors: Float[Tensor, "A 4"]


torch.export.register_dataclass(SSDOutputs, serialized_type_name="mbv2det.SSDOutputs")
