"""The search for the largest batch that `find_batch_size` runs."""

import os
from pathlib import Path

import torch
from torch import Tensor

from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.errors import ConfigError
from mbv2det.structures import Batch
from mbv2det.training.batch_size import largest_by_estimate, largest_that_fits, resized
from mbv2det.training.module import DenseModule
from mbv2det.training.optim import make_optimizer
from mbv2det.training.trainer import default_precision

_MEMINFO = Path("/proc/meminfo")
_TRIED = 4  # images of the training data that the batches repeat


def find_batch_size(settings: Settings) -> int:
    """Finds the largest batch, and prints it.

    Raises:
        ConfigError: If not even one image fits.
    """
    parts = RunParts.read(settings)
    module = parts.module()
    data = parts.data()
    data.batch_size, data.num_workers = min(_TRIED, len(parts.training)), 0
    images = next(iter(data.train_dataloader()))
    accelerator = settings.trainer["accelerator"]
    on_gpu = accelerator in (None, "auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    precision = str(settings.trainer["precision"] or default_precision(accelerator or "auto"))

    def loss(size: int) -> Tensor:
        return _loss(module, resized(images, size).to(device), precision)

    module.to(device)
    if on_gpu:
        optimizer = make_optimizer(module.model, module.optim, module.transferred)

        def step(size: int) -> None:
            optimizer.zero_grad()
            loss(size).backward()
            optimizer.step()
            torch.cuda.synchronize()

        found = largest_that_fits(step)
    else:
        found = largest_by_estimate(loss, free_memory())
    if not found:
        raise ConfigError(
            "data.image_size: expected images of which one fits into memory, got "
            f"{list(data.preprocessor.spec.size)}"
        )
    log(f"memory of {device.type}, {precision}: " + ("tried" if on_gpu else "estimated"))
    print(f"largest batch: --data.batch_size={min(found, len(parts.training))}")
    return found


def _loss(module: DenseModule, batch: Batch, precision: str) -> Tensor:
    """Returns the loss of a training step in the type that the trainer would compute it in."""
    types = {"bf16": torch.bfloat16, "16": torch.float16}
    dtype = types.get(precision.split("-")[0])
    with torch.autocast(batch.images.device.type, dtype=dtype, enabled=dtype is not None):
        losses = module.training_losses(batch)
    return torch.stack([terms.total() for _, terms in losses]).sum()


def free_memory() -> int:
    """Returns the bytes of memory that the system can give to this process."""
    if _MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
