"""ONNX, written by PyTorch's exporter."""

import ast
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.deploy.formats.format import INT8, Format
from mbv2det.deploy.graph import INPUT, ExportedNetwork
from mbv2det.deploy.graph_input import RESIZE_IMAGE, dynamic_dimensions
from mbv2det.deploy.quantization.onnxruntime import OnnxRuntimeQuantizer
from mbv2det.deploy.quantization.quantizer import Quantizer
from mbv2det.detection.nms_mask import NMS_MASK
from mbv2det.output_layer import WHERE

_OPSET = 20  # what ONNX Runtime since 1.17 and OpenVINO since 2024 read


class OnnxFormat(Format):
    """ONNX, for ONNX Runtime, OpenVINO and many others."""

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    extra: ClassVar[str] = "onnx"
    packages: ClassVar[Sequence[str]] = ("onnx", "onnxscript")
    precisions: ClassVar[Sequence[str]] = ("fp32", "fp16", INT8)
    graph_precisions: ClassVar[Sequence[str]] = ("fp16",)
    quantizer: ClassVar[Quantizer | None] = OnnxRuntimeQuantizer()
    dynamic_batch: ClassVar[bool] = True
    operators: ClassVar[Sequence[str]] = (NMS_MASK, RESIZE_IMAGE, WHERE)
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


def onnx_program(network: ExportedNetwork, images: Tensor, *, dynamic_batch: bool = True) -> Any:
    """Returns the network as a program of PyTorch's ONNX exporter.

    Args:
        network: What the program is to compute.
        images: Example of its input.
        dynamic_batch: Whether it takes any number of images, or as many as the example has.
    """
    dynamic = dynamic_dimensions(resizes=network.resizes) if dynamic_batch else {}
    from mbv2det.deploy.formats.onnx_operators import translations  # needs a package of the extra

    with warnings.catch_warnings(), redirect_stdout(StringIO()):  # it reports its progress
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (images,),
            input_names=[INPUT],
            output_names=list(network.names),
            dynamic_shapes=(dynamic,),
            opset_version=_OPSET,
            dynamo=True,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    name_by_module(program.model.graph)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the paths of the machine that exports
    for function in program.model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()
    return program


def name_by_module(graph: Any) -> None:
    """Puts the dotted name of the module that computes a node before its name: `MODULE/NODE`.

    What a module computes between its children counts as the child's whose result it takes last: so
    the residual sum after a block of the backbone belongs to that block.

    Args:
        graph: Graph of PyTorch's exporter, which tells the modules of its nodes.
    """
    modules: dict[Any, str] = {}
    for node in graph:
        # The modules from the outermost to the innermost, then the operation.
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['', '']"))
        module = scopes[-2]
        for value in node.inputs:
            source = modules.get(None if value is None else value.producer(), "")
            if source.startswith(f"{scopes[-2]}."):
                module = source
        modules[node] = module
        node.name = f"{module}/{node.name}"
