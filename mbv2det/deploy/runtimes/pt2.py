"""PyTorch: exported programs, `.pt2` files."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.deploy.graph import GRAPH, decode_metadata
from mbv2det.errors import ConfigError
from mbv2det.weights.header import HEADER


class Pt2Runtime:
    """Runs an exported program in PyTorch.

    Args:
        path: The file.
        device: "cpu" or "auto": the program holds the device that it was exported on.
        threads: Number of threads of an operation, for the whole process; None leaves it.

    Raises:
        ConfigError: If the file cannot be read or is not of this toolkit, or for another device.
    """

    name = "torch"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        if str(device) not in ("auto", "cpu"):
            raise ConfigError(f"device: expected auto or cpu for {path.name}, got {device}")
        if threads is not None:
            torch.set_num_threads(threads)
        metadata = dict.fromkeys((HEADER, GRAPH), "")
        try:
            program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=metadata)
        except Exception as error:  # of many kinds, as the zip file's own
            raise ConfigError(f"{path}: torch.export cannot read it ({error})") from None
        present = {key: text for key, text in metadata.items() if text}
        self.info, self.graph = decode_metadata(present, str(path))
        self.max_batch = self.graph.max_batch
        self._network = program.module()

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Mapping[str, Tensor]:
        """Returns the outputs of the program by name."""
        return dict(zip(self.graph.outputs, self._network(images.contiguous()), strict=True))
