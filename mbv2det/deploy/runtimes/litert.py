"""LiteRT: `.tflite` files."""

import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.formats.format import read_metadata
from mbv2det.deploy.graph import decode_metadata
from mbv2det.errors import ConfigError
from mbv2det.extras import require


class LiteRtRuntime:
    """Runs a LiteRT file on the CPU.

    Args:
        path: The `.tflite` file; the JSON file stands beside it.
        device: "cpu" or "auto".
        threads: Number of threads of an operation; None for LiteRT's own choice.

    Raises:
        ConfigError: If the package is missing, a file cannot be read or is not of this toolkit, or
            there is no such device.
    """

    name = "litert"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        require("ai_edge_litert", "litert", str(path))
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device: expected auto or cpu for litert, got {device}")
        self.info, self.graph = decode_metadata(read_metadata(path), str(path))
        self.max_batch = self.graph.max_batch
        self._path, self._threads = path, threads
        # An interpreter serves one thread at a time.
        self._interpreters: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._interpreters.put(self._new_interpreter())

    def _new_interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(str(self._path), num_threads=self._threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"{self._path}: LiteRT cannot read it ({reason})") from None
        return interpreter

    def __call__(self, images: UInt8[Tensor, "1 3 H W"]) -> Mapping[str, Tensor]:
        """Returns the outputs of the graph by name."""
        try:
            interpreter = self._interpreters.get_nowait()
        except queue.Empty:
            interpreter = self._new_interpreter()
        try:
            (given,) = interpreter.get_input_details()
            interpreter.set_tensor(given["index"], images.contiguous().numpy())
            interpreter.invoke()
            # The signature numbers the outputs in the order of the graph's.
            runner = interpreter.get_signature_runner()
            places = runner.get_output_details()
            return {
                name: torch.from_numpy(interpreter.get_tensor(places[f"output_{number}"]["index"]))
                for number, name in enumerate(self.graph.outputs)
            }
        finally:
            self._interpreters.put(interpreter)
