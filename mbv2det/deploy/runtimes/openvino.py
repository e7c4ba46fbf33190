"""OpenVINO: its own `.xml` files, and `.onnx` files."""

import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.graph import GRAPH, decode_metadata
from mbv2det.deploy.openvino_file import SECTION
from mbv2det.errors import ConfigError
from mbv2det.extras import require
from mbv2det.weights.header import HEADER

# OpenVINO would choose bfloat16 by itself where the processor is fast at it.
_INFERENCE_PRECISIONS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoRuntime:
    """Runs an OpenVINO or ONNX file in OpenVINO.

    Args:
        path: The file.
        device: OpenVINO's name of a device in any case: "cpu", "gpu", "npu"; "auto" is the CPU.
        threads: Number of threads of an operation; None for all cores.

    Raises:
        ConfigError: If the package is missing, the file cannot be read or is not of this toolkit,
            or there is no such device.
    """

    name = "openvino"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        core = require("openvino", "openvino", str(path)).Core()
        name = "CPU" if device == "auto" else device.upper()
        if name.split(".")[0] not in {known.split(".")[0] for known in core.available_devices}:
            raise ConfigError(
                f"device: expected auto, or one of OpenVINO's devices "
                f"({', '.join(core.available_devices).lower()}), got {device}"
            )
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigError(f"{path}: OpenVINO cannot read it ({reason})") from None
        self.info, self.graph = decode_metadata(_metadata(model), str(path))
        if self.graph.resizes:
            raise ConfigError(
                f"{path}: expected a file exported without --resize for OpenVINO, whose resizing "
                "does not average over the pixels that it leaves out"
            )
        self.max_batch = self.graph.max_batch
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _INFERENCE_PRECISIONS[self.graph.precision],
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model = core.compile_model(model, name, settings)
        # A request serves one thread at a time.
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Mapping[str, Tensor]:
        """Returns the outputs of the graph by name."""
        try:
            request = self._requests.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        try:
            results = request.infer([images.contiguous().cpu().numpy()])
            return {
                name: torch.from_numpy(results[place].copy())
                for place, name in enumerate(self.graph.outputs)
            }
        finally:
            self._requests.put(request)


def _metadata(model: Any) -> dict[str, str]:
    """Returns the texts of an OpenVINO file, or of an ONNX file, which OpenVINO puts elsewhere."""
    for section in (SECTION, "framework"):
        if model.has_rt_info([section, GRAPH]):
            return {key: model.get_rt_info([section, key]).astype(str) for key in (HEADER, GRAPH)}
    return {}
