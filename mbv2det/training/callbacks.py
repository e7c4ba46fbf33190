"""Callbacks: weight averaging, the best weights, pictures, and messages."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from mbv2det.atomic_write import write_json
from mbv2det.data.annotations import Annotations
from mbv2det.run_files import BEST, METRICS
from mbv2det.structures import Batch
from mbv2det.tasks.task import Prediction, mean_monitor, metrics_document
from mbv2det.training.module import DenseModule


class Ema(WeightAveraging):
    """An exponential moving average of weights and batch norm statistics, evaluated and saved.

    The decay rises with the number n of steps: min(decay, (1 + n) / (10 + n)). Averaging therefore
    improves short runs of 300 steps as well as runs of 300,000.

    Args:
        decay: Final decay.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=partial(ramped_average, decay=decay))

    def averaged_model(self) -> DenseModule:
        """Returns the module with the averaged weights."""
        assert self._average_model is not None
        averaged = self._average_model.module
        assert isinstance(averaged, DenseModule)
        return averaged


# Any process may read a damaged file, but Lightning prints warnings in the first process only.
_LOG = logging.getLogger(__name__)


@torch.no_grad()
def ramped_average(
    averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor, decay: float
) -> None:
    """Moves averages towards the current values, in place.

    Args:
        averaged: Averages, all of one type.
        current: Current values.
        num_averaged: Number of steps that the averages already contain.
        decay: Final decay.
    """
    steps = float(num_averaged)
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))
    else:  # batch norm's counts of batches
        torch._foreach_copy_(averaged, current)


class BestWeights(Callback):
    """Writes `best.safetensors` and `metrics.json` whenever the validation score improves.

    The score is the mean of the tasks' `monitor` metrics. Where it is undefined, as the validation
    split has no ground truth, the weights of every validation are written, so that the last ones
    stay; and so are those of a run that is never validated.

    Args:
        folder: Folder of the run.
        save: Function that writes a weights file, given (path, model, metrics).
        ema: Callback that averages the weights; None if weights are not averaged.
    """

    def __init__(
        self,
        folder: Path,
        save: Callable[[Path, torch.nn.Module, dict[str, Any]], None],
        ema: Ema | None,
    ) -> None:
        self.folder = folder
        self.save = save
        self.ema = ema
        self.best = -1.0
        self.written = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the weights if the score is the best so far."""
        assert isinstance(pl_module, DenseModule)
        # Not Lightning's `callback_metrics`, which keep the score of an earlier validation.
        score = mean_monitor(pl_module.tasks, pl_module.results)
        is_best = self.best < 0 if score is None else score > self.best
        if trainer.sanity_checking or not is_best:
            return
        self.best, self.written = self.best if score is None else score, True
        if trainer.is_global_zero:
            metrics = metrics_document(pl_module.results) | {"epoch": trainer.current_epoch}
            self._save(pl_module, metrics)
            write_json(self.folder / METRICS, metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the last weights of a run that was never validated."""
        assert isinstance(pl_module, DenseModule)
        if trainer.is_global_zero and not self.written:
            self._save(pl_module, {})

    def _save(self, pl_module: DenseModule, metrics: dict[str, Any]) -> None:
        module = pl_module if self.ema is None else self.ema.averaged_model()
        self.save(self.folder / BEST, module.model, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best score, for resuming."""
        return {"best": self.best, "written": self.written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best score."""
        self.best = state_dict["best"]
        self.written = state_dict.get("written", self.best >= 0)


class ValidateLastState(Callback):
    """Callback that validates the last state of a run if Lightning does not.

    Lightning leaves it out where `check_val_every_n_epoch` does not divide the number of epochs,
    and where `max_steps` or `max_time` end the run within an epoch. Schedules are best at the
    end.
    """

    def __init__(self) -> None:
        self.validated_step = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers the step of the state that was validated."""
        if not trainer.sanity_checking:
            self.validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates after the last epoch, be it complete or not."""
        is_validated = self.validated_step == trainer.global_step
        if is_validated or not trainer.enable_validation or not _ends_here(trainer):
            return
        loop = trainer.fit_loop.epoch_loop
        trainer.validating = True
        loop._batches_that_stepped -= 1  # loggers number the state after step n as n - 1
        loop.val_loop.run()
        loop._batches_that_stepped += 1
        trainer.training = True


def _ends_here(trainer: pl.Trainer) -> bool:
    """Returns whether the epoch that ends is the last one of the run."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    last_epoch = epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
    last_step = 0 <= steps <= trainer.global_step
    return last_epoch or last_step or trainer.should_stop


class PredictionPictures(Callback):
    """Callback that adds pictures of the first validation images to TensorBoard.

    Args:
        annotations: Annotations of the validation split.
        draw: Function that draws a prediction beside the annotation, given (index, prediction).
        count: Number of pictures, at most one batch.
    """

    def __init__(
        self,
        annotations: Annotations,
        draw: Callable[[int, Prediction], Image.Image],
        count: int = 4,
    ) -> None:
        self.annotations = annotations
        self.draw = draw
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws images of the first batch."""
        boards = [log for log in trainer.loggers if isinstance(log, TensorBoardLogger)]
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero or not boards:
            return
        keys = batch.counted().keys[: self.count]
        for key, prediction in zip(keys, outputs, strict=False):  # more predictions than keys
            picture = self.draw(key.index, prediction)
            for board in boards:
                board.experiment.add_image(
                    f"val/{self.annotations.path(key.index).stem}",
                    np.asarray(picture),
                    trainer.global_step,
                    dataformats="HWC",
                )


class PredictionObserver(Callback):
    """Callback that passes on the predictions for the validation images.

    Args:
        observe: Gets the predictions of every batch and the batch, each image once.
    """

    def __init__(self, observe: Callable[[Sequence[Prediction], Batch], None]) -> None:
        self.observe = observe

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Passes on the predictions of a batch."""
        self.observe(outputs, batch.counted())


class DamagedFileWarnings(Callback):
    """Callback that warns once about every damaged file, and counts them in each epoch.

    A damaged file is used in part, as a truncated image, or left out (`data.on_error: skip`).

    Args:
        splits: Annotations of the splits train and val, by name.
    """

    def __init__(self, splits: Mapping[str, Annotations]) -> None:
        self.splits = splits
        self.seen: set[tuple[str, int]] = set()
        self.in_part: dict[str, set[int]] = {name: set() for name in splits}
        self.left_out: dict[str, set[int]] = {name: set() for name in splits}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Warns about the damaged files of a training batch."""
        self._warn("train", batch)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Warns about the damaged files of a validation batch."""
        self._warn("val", batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the numbers of damaged files of the training epoch."""
        self._print_counts(trainer, pl_module, "train")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the numbers of damaged files of the validation."""
        self._print_counts(trainer, pl_module, "val")

    def _warn(self, split: str, batch: Batch) -> None:
        lines = {
            index: f"{self.splits[split].path(index)}: {'; '.join(faults)}"
            for index, faults in batch.faults.items()
        }
        left_out = {index: f"left out: {reason}" for index, reason in batch.left_out.items()}
        self.in_part[split].update(lines)
        self.left_out[split].update(left_out)
        for index, line in {**lines, **left_out}.items():
            if (split, index) not in self.seen:
                self.seen.add((split, index))
                _LOG.warning("%s", line)

    def _print_counts(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Prints the numbers of all processes, which each have files of their own."""
        own = [len(self.in_part[split]), len(self.left_out[split])]
        self.in_part[split].clear()
        self.left_out[split].clear()
        counts = torch.tensor(own, dtype=torch.float32, device=pl_module.device)
        in_part, left_out = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        if not trainer.sanity_checking and (in_part or left_out):
            trainer.print(
                f"epoch {trainer.current_epoch}: {split}: damaged images: {left_out:.0f} left out, "
                f"{in_part:.0f} used in part"
            )
