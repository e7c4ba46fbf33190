"""PyTorch's exported programs: `.pt2` files.

`torch.export.load` reads them where torchvision is imported, without this toolkit.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.deploy.formats.format import Format
from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.detection.nms_mask import NMS_MASK
from mbv2det.output_layer import WHERE

_APART = 100_000  # pixels: more than the side of any network input


class Pt2Format(Format):
    """PyTorch's exported programs."""

    name: ClassVar[str] = "pt2"
    suffix: ClassVar[str] = ".pt2"
    extra: ClassVar[str] = ""
    precisions: ClassVar[Sequence[str]] = ("fp32", "fp16", "bf16")
    graph_precisions: ClassVar[Sequence[str]] = ("fp16", "bf16")
    dynamic_batch: ClassVar[bool] = True
    operators: ClassVar[Sequence[str]] = (NMS_MASK, WHERE)

    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes the file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torchvision and torch.export themselves do
            program = torch.export.export(
                network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)
            ).run_decompositions({torch.ops.mbv2det.nms_mask.default: _nms_mask})
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # with the paths of the machine that exports
            with atomic_write(path) as part, part.open("wb") as file:
                torch.export.save(program, file, extra_files=dict(metadata))


def _nms_mask(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Computes what `nms_mask` does with torchvision's operator alone.

    The boxes of each image and class are moved to a place of their own; in float64 no box changes
    its size there. Two more boxes apart from all others are always kept: torchvision's operator
    promises torch.export at least two.
    """
    total = scores.numel()
    image, label, box = (scores > 0).nonzero(as_tuple=True)
    group = image * scores.shape[1] + label
    place = torch.cat([group * scores.shape[2] + box, torch.arange(total, total + 2)])
    moved = boxes[image, box].double() + group.double()[:, None] * _APART
    corner = torch.full((1, 2), -float(_APART), dtype=torch.float64)
    other = torch.cat([corner * 2, corner], dim=1)
    best = torch.cat([scores[image, label, box].double(), moved.new_zeros(2)])
    kept = torch.ops.torchvision.nms(torch.cat([moved, other, other * 2]), best, iou)
    mask = torch.zeros(total + 2, dtype=torch.bool).index_put(
        (place[kept],), torch.ones((), dtype=torch.bool)
    )
    return mask[:total].reshape(scores.shape)
