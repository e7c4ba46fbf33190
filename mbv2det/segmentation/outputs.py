"""What the segmentation head says about a batch, before anything is brought to full size."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class SegmentationOutputs:
    """Raw outputs; loss and postprocess read nothing else.

    The cells of the logits lie where `rows` and `columns` say, as SSD's lie where its anchors do:
    whoever brings them to another grid (`resample`) needs no stride and no padding rule.

    Attributes:
        logits: Of each label, background included.
        rows: Pixel row of the network input that each row of cells is centred on; the centre of
            the first pixel is 0. Evenly spaced.
        columns: Likewise.
        auxiliary: Logits of the auxiliary head on the same cells; None where there is none.
    """

    logits: Float[Tensor, "B L h w"]
    rows: Float[Tensor, " h"]
    columns: Float[Tensor, " w"]
    auxiliary: Float[Tensor, "B L h w"] | None = None


torch.export.register_dataclass(
    SegmentationOutputs, serialized_type_name="mbv2det.SegmentationOutputs"
)
