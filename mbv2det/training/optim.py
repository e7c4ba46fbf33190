"""Optimisers and the learning rate schedule."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mbv2det.config import OptimConfig

_POLY_POWER = 0.9  # as in DeepLab


class RMSpropTF(Optimizer):
    """RMSprop as in TensorFlow, to which the settings of the published recipes refer.

    It differs from PyTorch's in three ways, which matter with an epsilon of 1: epsilon is under the
    square root, the running average of squares starts at one, and momentum accumulates the scaled
    step times the learning rate.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        decay: Decay of the running average of squares.
        momentum: Momentum.
        eps: Epsilon, added to the running average of squares.
        weight_decay: L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "decay": decay,
            "momentum": momentum,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step, and returns the loss if there is a closure that computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, param.grad, group)
        return loss

    def _step_one(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state["square"] = torch.ones_like(param)
            state["momentum"] = torch.zeros_like(param)
        grad = grad.add(param, alpha=group["weight_decay"])
        state["square"].lerp_(grad.square(), 1 - group["decay"])
        scaled = grad / (state["square"] + group["eps"]).sqrt()
        state["momentum"].mul_(group["momentum"]).add_(scaled, alpha=group["lr"])
        param.sub_(state["momentum"])


def make_optimizer(
    model: nn.Module, config: OptimConfig, transferred: Collection[str] = ()
) -> Optimizer:
    """Builds the configured optimiser over the trainable parameters.

    Args:
        model: Network to train.
        config: Optimiser settings.
        transferred: Names of the tensors that come from the weights of a whole model.
    """
    groups = list(parameter_groups(model, config, transferred))
    if config.name == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    if config.name == "rmsprop":
        return RMSpropTF(
            groups,
            lr=config.lr,
            decay=config.rms_decay,
            momentum=config.momentum,
            eps=config.rms_eps,
        )
    return AdamW(groups, lr=config.lr)


def scaled_to_batch(config: OptimConfig, num_images: int) -> OptimConfig:
    """Returns the settings with the learning rate for steps of another number of images.

    The rate grows with the batch (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1),
    with any optimiser.

    Args:
        config: Optimiser settings, with the rate for `reference_batch` images.
        num_images: Images of a step, over all processes and accumulated batches.
    """
    if config.reference_batch is None:
        return config
    return replace(config, lr=config.lr * num_images / config.reference_batch)


def parameter_groups(
    model: nn.Module, config: OptimConfig, transferred: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Groups the trainable parameters by learning rate and weight decay.

    Weight decay applies to full convolution kernels only. TensorFlow regularises neither depthwise
    weights, which have few inputs, nor batch norm, nor biases.

    Args:
        model: Network to train.
        config: Optimiser settings.
        transferred: Names of the tensors that come from the weights of a whole model.
    """
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        if param.requires_grad:
            decays = param.ndim == 4 and param.shape[1] > 1
            key = (name.startswith("backbone."), name in transferred, decays)
            groups.setdefault(key, []).append(param)
    for (in_backbone, is_transferred, decays), params in groups.items():
        lr = config.lr * (config.backbone_lr_mult if in_backbone else 1.0)
        yield {
            "params": params,
            "lr": lr * (config.pretrained_lr_mult if is_transferred else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }


def make_schedule(optimizer: Optimizer, config: OptimConfig, total_steps: float) -> LambdaLR:
    """Builds the configured schedule of the optimiser's learning rates."""
    return LambdaLR(optimizer, lambda step: schedule_factor(config, step, total_steps))


def warmup_steps(config: OptimConfig, total_steps: float) -> float:
    """Returns the steps of the warm-up: the configured ones, at most a tenth of a short run."""
    return min(config.warmup_steps, total_steps // 10)


def schedule_factor(config: OptimConfig, step: int, total_steps: float) -> float:
    """Returns the factor of the learning rates at a step: linear warm-up, then the schedule.

    Args:
        config: Optimiser settings.
        step: Number of optimiser steps taken.
        total_steps: Number of optimiser steps of the whole run.
    """
    warmup = warmup_steps(config, total_steps)
    rise = min(1.0, (step + 1) / (warmup + 1))
    if config.schedule == "constant":
        return rise
    progress = min(1.0, max(0.0, step - warmup) / max(1, total_steps - warmup))
    if config.schedule == "poly":
        return rise * (1 - progress) ** _POLY_POWER
    return rise * 0.5 * (1 + math.cos(math.pi * progress))
