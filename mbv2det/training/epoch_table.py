"""One table row after each epoch: losses, metrics, time, images/s and time left."""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mbv2det.structures import Batch
from mbv2det.training.module import DenseModule

_ROWS_BELOW_HEADER = 15
_WIDTH = 10


class EpochTable(Callback):
    """Callback that prints a row after each epoch, and the header again from time to time.

    Losses are means over the steps of the epoch in the first process. The metrics are empty in
    epochs without validation. images/s counts training steps with their loading, without
    validation. The time left is that of the steps that are left, at the pace of this run so far,
    its validations included.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.run_started = 0.0
        self.steps_before = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the run; a resumed run has taken steps before."""
        self.run_started, self.steps_before = time.perf_counter(), trainer.global_step
        self._start_epoch()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the epoch; Lightning does not call this where a run resumes."""
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.started, self.validating, self.validation_seconds = time.perf_counter(), 0.0, 0.0
        self.sums: dict[str, Tensor] = {}
        self.steps = self.images = 0
        self.validated = False

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Adds the losses of a step, without waiting for the device."""
        self.steps += 1
        self.images += len(batch) * trainer.world_size
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/"):
                before = self.sums.get(name, torch.zeros_like(value))
                self.sums[name] = before + value.detach()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the clock of the training steps."""
        self.validating = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the training steps again."""
        if not trainer.sanity_checking:
            self.validation_seconds += time.perf_counter() - self.validating
            self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the row."""
        assert isinstance(pl_module, DenseModule)
        row = self._row(trainer, pl_module)
        if self.rows % _ROWS_BELOW_HEADER == 0:
            trainer.print("".join(f"{name:>{max(_WIDTH, len(name) + 2)}}" for name in row))
        self.rows += 1
        trainer.print("".join(f"{v:>{max(_WIDTH, len(name) + 2)}}" for name, v in row.items()))

    def _row(self, trainer: pl.Trainer, module: DenseModule) -> dict[str, str]:
        """Returns the cells of the epoch's row by the names of their columns."""
        seconds = time.perf_counter() - self.started
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        row = {"epoch": str(trainer.current_epoch)}
        row |= {name.removeprefix("train/"): f"{value:.4f}" for name, value in means.items()}
        loss = trainer.callback_metrics.get("val/loss") if self.validated else None
        row["val loss"] = "" if loss is None else f"{float(loss):.4f}"
        for task in module.tasks:
            block = module.results.get(task.name, {}) if self.validated else {}
            for name in task.shown_metrics:
                value = block.get(name)
                row[name] = "" if value is None else f"{value:.3f}"
        row["time"] = clock(seconds)
        row["images/s"] = f"{self.images / max(seconds - self.validation_seconds, 1e-9):.1f}"
        return row | {"left": self._left(trainer)}

    def _left(self, trainer: pl.Trainer) -> str:
        """Returns the time of the steps that are left; empty for a run without an end."""
        done, total = trainer.global_step - self.steps_before, trainer.estimated_stepping_batches
        if done <= 0 or total == float("inf"):
            return ""
        pace = (time.perf_counter() - self.run_started) / done
        return clock(pace * max(0, total - trainer.global_step))


def clock(seconds: float) -> str:
    """Returns a duration as hours, minutes and seconds: 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
