"""What the comparisons with torchvision share: this project's data, and a plain training loop."""

from collections.abc import Callable

import torch
from rich.progress import track
from torch import nn

from mbv2det.cli.session import ConfigParser, Settings, default_precision
from mbv2det.cli.train import read_splits
from mbv2det.config import AugmentConfig
from mbv2det.data.augment import Augment
from mbv2det.data.datamodule import DenseData
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessor, PreprocessSpec
from mbv2det.structures import Batch


def parse(description: str, arguments: list[str]) -> Settings:
    """The settings of `CONFIG [--key.sub=value ...]`; ImageNet weights are required."""
    parser = ConfigParser(description)
    settings = parser.parse(arguments)
    if settings.config.backbone.weights is None:
        parser.parser.error("backbone.weights: the peer starts from ImageNet; expected a file")
    return settings


def make_data(settings: Settings, augment: AugmentConfig) -> DenseData:
    """The configuration's data with ImageNet's preprocessing."""
    config = settings.config
    training, validation = read_splits(config)
    spec = PreprocessSpec(config.data.size, config.data.resize, IMAGENET_MEAN, IMAGENET_STD)
    return DenseData(
        training,
        validation,
        Preprocessor(spec),
        Augment(augment, Preprocessor(spec), config.seed),
        batch_size=config.data.batch_size,
        num_workers=config.data.num_workers,
        seed=config.seed,
    )


def train(
    model: nn.Module,
    data: DenseData,
    epochs: int,
    *,
    optimizer: torch.optim.Optimizer,
    factor: Callable[[int, int], float],
    loss: Callable[[Batch], torch.Tensor],
) -> None:
    """Plain steps, in bfloat16 where the processor multiplies it natively.

    Args:
        model: Put into training mode.
        data: Whose training split is gone through in this project's order.
        epochs: How often.
        optimizer: Over the model.
        factor: (step, steps in all) to what multiplies the learning rates.
        loss: Of a batch.
    """
    loader = data.train_dataloader()
    rates = [group["lr"] for group in optimizer.param_groups]
    total, step = epochs * len(loader), 0
    bf16 = default_precision("cpu") == "bf16-mixed"
    model.train()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in track(loader, f"Epoch {epoch}", transient=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(step, total)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            step += 1
