"""OpenVINO's intermediate representation: an `.xml` file with a `.bin` file beside it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mbv2det.deploy.formats.format import Format
from mbv2det.deploy.formats.onnx import OnnxFormat, onnx_program
from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.detection.nms_mask import NMS_MASK

SECTION = "mbv2det"  # of the texts in the file's runtime information


class OpenVinoFormat(Format):
    """OpenVINO, converted from the ONNX graph.

    The weights of fp16 and bf16 are stored as fp16. An fp16 file computes in float32 on a CPU; a
    bf16 file computes in bfloat16 where the processor can.
    """

    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".xml"
    extra: ClassVar[str] = "openvino"
    packages: ClassVar[Sequence[str]] = ("openvino", *OnnxFormat.packages)
    precisions: ClassVar[Sequence[str]] = ("fp32", "fp16", "bf16")
    dynamic_batch: ClassVar[bool] = True
    operators: ClassVar[Sequence[str]] = (NMS_MASK,)
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

        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            graph = Path(folder) / "graph.onnx"
            onnx_program(network, images).save(graph, external_data=False)
            model = openvino.convert_model(graph)
            for key, text in metadata.items():
                model.set_rt_info(text, [SECTION, key])
            part = Path(folder) / path.name
            openvino.save_model(model, part, compress_to_fp16=precision != "fp32")
            del model  # it may hold the files open
            for file in (part.with_suffix(".bin"), part):
                file.replace(path.with_name(file.name))
