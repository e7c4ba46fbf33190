"""Data and training loop of the comparisons with torchvision's networks."""

from collections.abc import Callable

import torch
from rich.progress import track
from torch import nn

from mbv2det.augment_config import AugmentConfig
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.cli.splits import read_splits
from mbv2det.data.augment import Augment
from mbv2det.data.datamodule import DenseData
from mbv2det.data.mixing import mixing_of_run
from mbv2det.errors import ConfigError
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessor, PreprocessSpec
from mbv2det.structures import Batch
from mbv2det.training.trainer import default_precision


def parse(description: str, arguments: list[str]) -> Settings:
    """Parses `CONFIG [--key.sub=value ...]`.

    Raises:
        ConfigError: If the configuration has no ImageNet weights to start from.
    """
    settings = SettingsParser(description).parse(arguments)
    if settings.config.backbone.weights is None:
        raise ConfigError(
            "backbone.weights: expected a file of ImageNet weights to start from, got none"
        )
    return settings


def make_data(settings: Settings, augment: AugmentConfig) -> DenseData:
    """Returns the data of the configuration with the preprocessing of ImageNet weights."""
    config = settings.config
    training, validation = read_splits(config)
    spec = PreprocessSpec(config.data.size, config.data.resize, IMAGENET_MEAN, IMAGENET_STD)
    preprocessor, epochs = Preprocessor(spec), settings.trainer["max_epochs"]
    return DenseData(
        training,
        validation,
        preprocessor,
        Augment(augment, preprocessor, config.seed),
        batch_size=config.data.batch_size,
        num_workers=config.data.num_workers,
        seed=config.seed,
        mix=mixing_of_run(augment, preprocessor, config.seed, training, epochs),
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
    """Trains with a plain loop, in bfloat16 where the processor multiplies it natively.

    Args:
        model: The network; left in training mode.
        data: Data whose training split is read, in the same order as by mbv2det.
        epochs: Number of epochs.
        optimizer: Optimizer of the model's parameters.
        factor: Function from the step and the number of steps to the factor of the learning rates.
        loss: Function that returns the loss of a batch.
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
