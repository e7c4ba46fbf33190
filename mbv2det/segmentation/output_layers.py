"""The segmenter's last layer in an exported network: labels of pixels, or logits of cells."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from mbv2det.geometry import Frame, GraphFrame
from mbv2det.output_layer import WHERE, OutputLayer
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.postprocess import SegmentationPostprocess
from mbv2det.segmentation.resample import bilinear_weights
from mbv2det.structures import SegmentationMap


class ClassMap(OutputLayer):
    """The label of every pixel of the images: `classes` (B, H, W) of uint8.

    In a graph that does not resize, these are the pixels of the network input, and those of an
    original image of another size get the labels of the nearest ones. PyTorch's postprocessing, and
    a graph that resizes, interpolate the logits at the pixels of the original image instead, which
    draws borders between labels more finely; `GridLogits` allows for that too.
    """

    names: ClassVar[tuple[str, ...]] = ("classes",)
    operators: ClassVar[tuple[str, ...]] = (WHERE,)

    def forward(self, outputs: SegmentationOutputs, frame: GraphFrame) -> tuple[Tensor, ...]:
        """Returns the labels."""
        vertical, horizontal = (
            bilinear_weights(cells, positions)
            for cells, positions in zip(
                (outputs.rows, outputs.columns), frame.pixel_centres(), strict=True
            )
        )
        # As `resample`, one label after the other: all at once would take 4 bytes for each label of
        # each pixel.
        first, *others = (outputs.logits.float() @ horizontal.T).unbind(dim=1)
        best = vertical @ first
        labels = torch.zeros_like(best)  # of the logits' type: converters mix no types
        for label, columns in enumerate(others, start=1):
            logits = vertical @ columns
            labels = torch.where(logits > best, float(label), labels)
            best = torch.maximum(best, logits)
        return (labels.to(torch.uint8),)

    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[SegmentationMap]:
        """Returns the labels on the pixels of each original image."""
        return [
            SegmentationMap(labels[_nearest(frame)].to(torch.uint8))
            for labels, frame in zip(tensors["classes"], frames, strict=True)
        ]

    def differences(
        self, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Returns the share of the pixels whose labels differ."""
        other = expected["classes"] != got["classes"]
        return {"share of other classes": other.double().mean().item()}


def _nearest(frame: Frame) -> tuple[Int64[Tensor, "H 1"], Int64[Tensor, " W"]]:
    """Returns the row and column of the network input that is nearest to each original pixel."""
    rows, columns = (
        centres.round().long().clamp(0, max(0, round(side * scale) - 1))
        for centres, side, scale in zip(
            frame.pixel_centres(), frame.original, frame.scale, strict=True
        )
    )
    return rows[:, None], columns


class GridLogits(OutputLayer):
    """The logits of each label on the cells of the head's grid: `logits` (B, L, h, w).

    The positions of the cells on the network input are constants of the file, `rows` and `columns`.

    Args:
        postprocess: Chooses the label of every original pixel when the tensors are read.
    """

    names: ClassVar[tuple[str, ...]] = ("logits",)
    in_original_pixels: ClassVar[bool] = False

    def __init__(self, postprocess: SegmentationPostprocess) -> None:
        super().__init__()
        self.postprocess = postprocess

    def forward(self, outputs: SegmentationOutputs, frame: GraphFrame) -> tuple[Tensor, ...]:
        """Returns the logits in float32."""
        return (outputs.logits.float(),)

    def constants(self, outputs: SegmentationOutputs) -> dict[str, Tensor]:
        """Returns the positions of the cells."""
        return {"rows": outputs.rows, "columns": outputs.columns}

    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[SegmentationMap]:
        """Returns the labels on the pixels of each original image, as the network in PyTorch."""
        outputs = SegmentationOutputs(tensors["logits"], tensors["rows"], tensors["columns"])
        return self.postprocess(outputs, frames)
