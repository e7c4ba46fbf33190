"""ONNX files, quantised by ONNX Runtime: QuantizeLinear and DequantizeLinear around the nodes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.console import errors_alone
from mbv2det.deploy.graph import INPUT
from mbv2det.deploy.quantization.quantizer import Calibration, Quantizer


class OnnxRuntimeQuantizer(Quantizer):
    """Static quantisation by ONNX Runtime; the ranges are those of all calibration images.

    Processors without VNNI add two products of 8 bits in 16 bits, which overflow: there the weights
    have 7 bits.
    """

    extra: ClassVar[str] = "onnx"
    packages: ClassVar[Sequence[str]] = ("onnx", "onnxruntime")
    distributions: ClassVar[Sequence[str]] = ("onnxruntime",)

    def quantize(
        self, source: Path, path: Path, calibration: Calibration, metadata: Mapping[str, str]
    ) -> None:
        """Writes the int8 file."""
        import onnx
        from onnxruntime import quantization

        # The quantiser advises on the steps that were just taken.
        with (
            tempfile.TemporaryDirectory() as folder,
            errors_alone(None),
            atomic_write(path) as part,
        ):
            prepared = Path(folder) / "prepared.onnx"
            # Symbolic inference of shapes fails on NonMaxSuppression, and is not needed.
            quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
            nodes = onnx.load(prepared).graph.node
            quantization.quantize_static(
                prepared,
                part,
                _Images(calibration.images),
                quant_format=quantization.QuantFormat.QDQ,
                nodes_to_quantize=[n.name for n in nodes if calibration.quantizes(n.name)],
                per_channel=True,
                reduce_range=_sums_overflow(),
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            model = onnx.load(part)
            onnx.helper.set_model_props(model, dict(metadata))
            onnx.save(model, part)


def _sums_overflow() -> bool:
    """Returns whether this is an x86 processor without VNNI."""
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return is_x86 and not torch.cpu._is_vnni_supported()  # no public function tells


class _Images:
    """The calibration images one by one, as ONNX Runtime asks for them.

    Args:
        images: The images.
    """

    def __init__(self, images: UInt8[Tensor, "N 3 H W"]) -> None:
        self._images = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next image as the graph's input; None after the last."""
        image = next(self._images, None)
        return None if image is None else {INPUT: image.numpy()}
