"""OpenVINO's intermediate representation: an `.xml` file with a `.bin` file beside it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mbv2det.deploy.formats.format import INT8, Format
from mbv2det.deploy.formats.onnx import OnnxFormat, onnx_program
from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.deploy.openvino_file import save_openvino
from mbv2det.deploy.quantization.nncf import NncfQuantizer
from mbv2det.deploy.quantization.quantizer import Quantizer
from mbv2det.detection.nms_mask import NMS_MASK
from mbv2det.output_layer import WHERE


class OpenVinoFormat(Format):
    """OpenVINO, converted from the ONNX graph.

    The weights of fp16 and bf16 are stored as fp16. An fp16 file computes in float32 on a CPU; a
    bf16 file computes in bfloat16 where the processor can.
    """

    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".xml"
    extra: ClassVar[str] = "openvino"
    packages: ClassVar[Sequence[str]] = ("openvino", *OnnxFormat.packages)
    precisions: ClassVar[Sequence[str]] = ("fp32", "fp16", "bf16", INT8)
    quantizer: ClassVar[Quantizer | None] = NncfQuantizer()
    dynamic_batch: ClassVar[bool] = True
    operators: ClassVar[Sequence[str]] = (NMS_MASK, WHERE)
    distributions: ClassVar[Sequence[str]] = ("openvino", *OnnxFormat.distributions)

    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes the `.xml` and the `.bin` file."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "graph.onnx"
            onnx_program(network, images).save(graph, external_data=False)
            model = openvino.convert_model(graph)
            save_openvino(model, path, metadata, compress=precision != "fp32")
            del model  # it may hold the file open
