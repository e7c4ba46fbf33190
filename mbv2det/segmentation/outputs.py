"""Raw outputs of the segmentation head."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class SegmentationOutputs:
    """Raw outputs of the segmentation head for a batch: all that loss and postprocess read.

    The positions of the logits' cells are part of the outputs, as the anchors are part of SSD's, so
    that `resample` needs neither a stride nor a padding rule.

    Attributes:
        logits: Logits of each label, background included, on the cells of a grid.
        rows: Row of the network input on which each row of cells is centred; evenly spaced. 0 is
            the centre of the first pixel.
        columns: Column of the network input on which each column of cells is centred, as `rows`.
        auxiliary: Logits of the auxiliary head on the same cells; None without such a head.
    """

    logits: Float[Tensor, "B L h w"]
    rows: Float[Tensor, " h"]
    columns: Float[Tensor, " w"]
    auxiliary: Float[Tensor, "B L h w"] | None = None


torch.export.register_dataclass(
    SegmentationOutputs, serialized_type_name="mbv2det.SegmentationOutputs"
)
