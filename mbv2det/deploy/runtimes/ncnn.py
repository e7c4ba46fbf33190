"""ncnn: `.param` files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.formats.format import read_metadata
from mbv2det.deploy.graph import decode_metadata
from mbv2det.errors import ConfigError
from mbv2det.extras import require


class NcnnRuntime:
    """Runs an ncnn file on the CPU.

    Args:
        path: The `.param` file; the `.bin` and the JSON file stand beside it.
        device: "cpu" or "auto".
        threads: Number of threads of an operation; None for one for each core.

    Raises:
        ConfigError: If the package is missing, a file cannot be read or is not of this toolkit, or
            there is no such device.
    """

    name = "ncnn"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        package = require("ncnn", "ncnn", str(path))
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device: expected auto or cpu for ncnn, got {device}")
        self.info, self.graph = decode_metadata(read_metadata(path), str(path))
        self.max_batch = self.graph.max_batch
        self._net = package.Net()
        if threads is not None:
            self._net.opt.num_threads = threads
        if self.graph.precision == "fp32":
            self._net.opt.use_fp16_packed = False
            self._net.opt.use_fp16_storage = False
            self._net.opt.use_fp16_arithmetic = False
            self._net.opt.use_bf16_storage = False
        weights = path.with_suffix(".bin")
        for file, load in ((path, self._net.load_param), (weights, self._net.load_model)):
            if not file.is_file() or load(str(file)) != 0:
                raise ConfigError(f"{file}: ncnn cannot read it")
        (self._input,) = self._net.input_names()
        self._outputs = self._net.output_names()
        self._matrix = package.Mat

    def __call__(self, images: UInt8[Tensor, "1 3 H W"]) -> Mapping[str, Tensor]:
        """Returns the outputs of the graph by name."""
        pixels = np.ascontiguousarray(images[0].numpy(), dtype=np.float32)
        extractor = self._net.create_extractor()  # one for each call: several threads may run
        extractor.input(self._input, self._matrix(pixels))
        return {
            name: self._extracted(extractor, output)
            for name, output in zip(self.graph.outputs, self._outputs, strict=True)
        }

    def _extracted(self, extractor: Any, output: str) -> Tensor:
        code, matrix = extractor.extract(output)
        if code != 0:
            raise ConfigError(f"{output}: ncnn cannot compute it (code {code})")
        return torch.from_numpy(np.array(matrix))[None]
