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

_APART = 100_000  # pixels: more than the side of any network input


class Pt2Format(Format):
    """PyTorch's exported programs."""

    name: ClassVar[str] = "pt2"
    suffix: ClassVar[str] = ".pt2"
    extra: ClassVar[str] = ""
    precisions: ClassVar[Sequence[str]] = ("fp32", "fp16", "bf16")
    graph_precisions: ClassVar[Sequence[str]] = ("fp16", "bf16")
    dynamic_batch: ClassVar[bool] = True
    operators: ClassVar[Sequence[str]] = (NMS_MASK,)

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
    """Computes what `nms_mask` does with torchvision's operator alone, and no size that varies.

    Each group is moved to a place of its own; in float64 no box changes its size there. Boxes of
    score 0 all go to one place, where the first suppresses the others. Two more boxes apart from
    all others are always kept: torchvision's operator promises torch.export at least two.
    """
    group = torch.arange(scores.shape[0], device=scores.device)[:, None].expand_as(scores).flatten()
    flat = scores.flatten().double()
    corner = flat.new_zeros(1, 2)
    nowhere = torch.cat([corner - _APART, corner], dim=1)
    moved = boxes.reshape(-1, 4).double() + group.double()[:, None] * _APART
    moved = torch.where((flat > 0)[:, None], moved, nowhere)
    kept = torch.ops.torchvision.nms(
        torch.cat([moved, nowhere, nowhere - 2 * _APART]),
        torch.cat([flat, flat.new_zeros(2)]),
        iou,
    )
    mask = torch.zeros(flat.shape[0] + 2, dtype=torch.int64, device=flat.device)
    mask = mask.scatter(0, kept, torch.ones_like(kept))[: flat.shape[0]]
    return ((mask > 0) & (flat > 0)).reshape(scores.shape)
