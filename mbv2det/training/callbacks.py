"""Callbacks: weight averaging, the best weights, pictures, and messages."""

import logging
import time
from collections.abc import Callable, Mapping
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
from mbv2det.structures import Batch
from mbv2det.tasks.task import Prediction, metrics_document
from mbv2det.training.module import DenseModule


class Ema(WeightAveraging):
    """An exponential moving average of weights and batch norm statistics, evaluated and saved.

    The decay rises from step to step: min(decay, (1 + n) / (10 + n)) after n steps. So a run of 300
    steps gains from averaging as one of 300,000 does.

    Args:
        decay: Final decay.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=partial(ramped_average, decay=decay))

    def averaged_model(self) -> DenseModule:
        """The module with the averaged weights."""
        assert self._average_model is not None
        averaged = self._average_model.module
        assert isinstance(averaged, DenseModule)
        return averaged


# Any process may meet a damaged file, while Lightning's warnings come from the first one only.
_LOG = logging.getLogger(__name__)


@torch.no_grad()
def ramped_average(
    averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor, decay: float
) -> None:
    """Moves averages towards the current values, in place.

    Args:
        averaged: Averages, all of one type.
        current: Current value of each.
        num_averaged: Number of steps that the averages already contain.
        decay: Final decay.
    """
    steps = float(num_averaged)
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))
    else:  # batch norm's counters of batches
        torch._foreach_copy_(averaged, current)


class BestWeights(Callback):
    """Writes `best.safetensors` and `metrics.json` whenever the validation score improves.

    The score is the mean over the tasks of the metric that selects the best weights. A run that is
    never validated leaves its last weights.

    Args:
        folder: Folder of the run.
        save: Writes (path, model, metrics).
        ema: Callback whose averages are evaluated; None if weights are not averaged.
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

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares the score with the best so far."""
        assert isinstance(pl_module, DenseModule)
        score = float(trainer.callback_metrics["val/score"])
        if trainer.sanity_checking or score <= self.best:
            return
        self.best = score
        if trainer.is_global_zero:
            metrics = metrics_document(pl_module.results) | {"epoch": trainer.current_epoch}
            self._save(pl_module, metrics)
            write_json(self.folder / "metrics.json", metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the last weights of a run that was never validated."""
        assert isinstance(pl_module, DenseModule)
        if trainer.is_global_zero and self.best < 0:
            self._save(pl_module, {})

    def _save(self, pl_module: DenseModule, metrics: dict[str, Any]) -> None:
        module = pl_module if self.ema is None else self.ema.averaged_model()
        self.save(self.folder / "best.safetensors", module.model, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The best score, for resuming."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best score."""
        self.best = state_dict["best"]


class ValidationLine(Callback):
    """Prints one line after each validation."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the averages and how long they took."""
        assert isinstance(pl_module, DenseModule)
        if trainer.sanity_checking:
            return
        seconds = time.perf_counter() - self.started
        for block in pl_module.results.values():
            shown = [f"{k} {v:.3f}" for k, v in block.items() if isinstance(v, float)]
            trainer.print(
                f"epoch {trainer.current_epoch}: {'  '.join(shown)}  "
                f"({block['images']} images in {seconds:.1f} s)"
            )


class PredictionPictures(Callback):
    """Puts pictures of predictions for the first validation images into TensorBoard.

    Args:
        annotations: Annotations of the validation split.
        draw: Draws the prediction for the image of an index beside its annotation.
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


class DamagedFileWarnings(Callback):
    """Names every damaged image file once, when a batch first brings it.

    Args:
        splits: Annotations by the trainer's name of the stage: train and val.
    """

    def __init__(self, splits: Mapping[str, Annotations]) -> None:
        self.splits = splits
        self.seen: set[tuple[str, int]] = set()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Looks at a training batch."""
        self._warn("train", batch)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Looks at a validation batch."""
        self._warn("val", batch)

    def _warn(self, split: str, batch: Batch) -> None:
        for index, faults in batch.faults.items():
            if (split, index) not in self.seen:
                self.seen.add((split, index))
                _LOG.warning("%s: %s", self.splits[split].path(index), "; ".join(faults))
