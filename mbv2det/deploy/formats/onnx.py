"""ONNX, written by PyTorch's exporter."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.deploy.formats.format import Format
from mbv2det.deploy.graph import INPUT, ExportedNetwork
from mbv2det.detection.nms_mask import NMS_MASK

_OPSET = 20  # what ONNX Runtime since 1.17 and OpenVINO since 2024 read


class OnnxFormat(Format):
    """ONNX, for ONNX Runtime, OpenVINO and many others."""

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    extra: ClassVar[str] = "onnx"
    packages: ClassVar[Sequence[str]] = ("onnx", "onnxscript")
    graph_precisions: ClassVar[Sequence[str]] = ("fp16",)
    dynamic_batch: ClassVar[bool] = True
    operators: ClassVar[Sequence[str]] = (NMS_MASK,)
    distributions: ClassVar[Sequence[str]] = ("onnx", "onnxscript")

    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes the file; weights of more than 2 GB, which none of our networks has, fail."""
        program = onnx_program(network, images)
        program.model.metadata_props.update(metadata)
        with atomic_write(path) as part:
            program.save(part, external_data=False)


def onnx_program(network: ExportedNetwork, images: Tensor) -> Any:
    """Returns the network as a program of PyTorch's ONNX exporter, for any number of images."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):  # it reports its progress
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (images,),
            input_names=[INPUT],
            output_names=list(network.names),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of the machine that exports
    for function in program.model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()
    return program


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Returns the ONNX functions of the operators of this toolkit."""
    from onnxscript import opset20 as op

    def nms_mask(boxes, scores, iou: float):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        # NonMaxSuppression gives (image, class, box) of each box that it keeps.
        kept = op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[2**31 - 1]),  # none is selected where this limit is absent
            op.Constant(value_floats=[iou]),
            op.Constant(value_floats=[0.0]),
        )
        count = op.Slice(op.Shape(kept), op.Constant(value_ints=[0]), op.Constant(value_ints=[1]))
        nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
        ones = op.Expand(op.Constant(value_float=1.0), count)
        return op.Cast(op.ScatterND(nothing, kept, ones), to=9)  # bool

    return {torch.ops.mbv2det.nms_mask.default: nms_mask}
