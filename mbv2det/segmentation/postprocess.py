"""Segmentation postprocess: the label of every pixel of the original image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mbv2det.geometry import Frame
from mbv2det.segmentation.argmax import interpolated_argmax
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.structures import SegmentationMap


@dataclass(frozen=True)
class SegmentationPostprocess:
    """Chooses the label with the largest logit at every pixel of the original image.

    The logits are interpolated once, from their cells directly to the pixel centres of the original
    image, whatever resize, crop and padding lie between; and only where the cells around a pixel
    leave its label open.
    """

    def __call__(
        self, outputs: SegmentationOutputs, frames: Sequence[Frame]
    ) -> list[SegmentationMap]:
        """Returns the labels of each image, on the pixels of its original file.

        Args:
            outputs: Raw outputs of the segmentation head for a batch.
            frames: Frame of each image of the batch.

        Raises:
            ValueError: If there are not as many frames as images.
        """
        device = outputs.logits.device
        cells = outputs.rows, outputs.columns
        return [
            SegmentationMap(interpolated_argmax(logits, cells, _pixels(frame, device)))
            for logits, frame in zip(outputs.logits, frames, strict=True)
        ]


def _pixels(frame: Frame, device: torch.device) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
    rows, columns = frame.pixel_centres()
    return rows.to(device), columns.to(device)
