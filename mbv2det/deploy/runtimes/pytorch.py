"""PyTorch: the network of a weights file."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.build import evaluation_model
from mbv2det.deploy.fused_conv import can_fuse, fused
from mbv2det.deploy.prepare import prepared
from mbv2det.errors import ConfigError
from mbv2det.model import MultiTaskModel
from mbv2det.model_config import EvalConfig
from mbv2det.tasks import Task


class PyTorchRuntime:
    """Runs a network in PyTorch: batch norm folded, channels last, without autograd.

    On a CPU, convolutions are fused with their activations, unless the network is compiled, which
    does that by itself.

    Its results are the raw outputs of each head, by task name.

    Args:
        model: Network with its weights; it stays as it is.
        tasks: Tasks of the network.
        thresholds: Settings of the postprocessing, for augmentation at test time.
        device: Device to run on; "auto" takes a GPU if there is one.
        dtype: Type of weights and features.
        compile: Whether to compile the network at its first call (`torch.compile`), which takes
            minutes and pays for many images.
        threads: Number of threads of an operation, for the whole process; None leaves it.

    Raises:
        ConfigError: If there is no such device.
    """

    name = "torch"
    max_batch: int | None = None

    def __init__(
        self,
        model: MultiTaskModel,
        tasks: Sequence[Task],
        thresholds: EvalConfig,
        device: torch.device | str = "auto",
        *,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = _device(device)
        ready = prepared(model, dtype)
        if not compile and can_fuse(self.device):
            ready = fused(ready)
        network = evaluation_model(ready, tasks, thresholds)
        try:
            self._network = network.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"device: expected auto, or one of this machine's devices, got {device} ({reason})"
            ) from None
        if compile:
            self._network.compile()

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Mapping[str, Any]:
        """Returns the raw outputs of each head by task name, on the runtime's device."""
        return self._network(images.to(self.device))


def _device(device: torch.device | str) -> torch.device | str:
    """Returns the device of a name, where "auto" is a GPU if there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
