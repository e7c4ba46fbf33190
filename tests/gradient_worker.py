"""One process of `test_distributed_loss`: writes the gradients of one training step.

GRADIENTS=OUT python gradient_worker.py CONFIG [--key.sub=value ...]
"""

import os
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from mbv2det.cli import train


class Gradients(Callback):
    """Saves the gradients of the first step and stops."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.is_global_zero:
            gradients = {
                name: parameter.grad.clone()
                for name, parameter in pl_module.model.named_parameters()
                if parameter.grad is not None
            }
            torch.save(gradients, self.path)
        trainer.should_stop = True


def main() -> None:
    out = Path(os.environ["GRADIENTS"])
    make_trainer = train.make_trainer

    def with_gradients(arguments, callbacks, **defaults) -> pl.Trainer:
        return make_trainer(arguments, [*callbacks, Gradients(out)], **defaults)

    train.make_trainer = with_gradients
    train.main()


if __name__ == "__main__":
    main()
