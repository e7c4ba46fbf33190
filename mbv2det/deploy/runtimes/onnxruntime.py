"""ONNX Runtime: `.onnx` files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.graph import INPUT, decode_metadata
from mbv2det.errors import ConfigError
from mbv2det.extras import require


class OnnxRuntime:
    """Runs an ONNX file in ONNX Runtime.

    Args:
        path: The file.
        device: "cpu", "cuda", or "auto", which takes a GPU if ONNX Runtime was built for it.
        threads: Number of threads of an operation; None for one for each core.

    Raises:
        ConfigError: If the package is missing, the file cannot be read or is not of this toolkit,
            or there is no such device.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        package = require("onnxruntime", "onnx", str(path))
        options = package.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        providers = _providers(device, package.get_available_providers())
        try:
            self._session = package.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # of types that the package does not export
            raise ConfigError(f"{path}: ONNX Runtime cannot read it ({error})") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.info, self.graph = decode_metadata(metadata, str(path))
        self.max_batch = self.graph.max_batch

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Mapping[str, Tensor]:
        """Returns the outputs of the graph by name."""
        results = self._session.run(None, {INPUT: images.contiguous().cpu().numpy()})
        return {
            name: torch.from_numpy(result)
            for name, result in zip(self.graph.outputs, results, strict=True)
        }


def _providers(device: str, available: list[str]) -> list[str]:
    """Returns ONNX Runtime's names of a device, and of the CPU for what the device lacks."""
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    if device == "cpu" or (device == "auto" and cuda not in available):
        return [cpu]
    if device in ("auto", "cuda") and cuda in available:
        return [cuda, cpu]
    raise ConfigError(
        f"device: expected auto, or one of this machine's devices for onnxruntime, got {device}"
    )
