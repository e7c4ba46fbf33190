"""Checkpoints of a run: when they are written, which survive, and which one a run resumes from.

A checkpoint holds everything that the next step depends on, so that a resumed run takes the same
steps as one that was never interrupted. `last.ckpt` is the newest and `previous.ckpt` the one
before. A file appears complete or not at all.
"""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from mbv2det.console import log
from mbv2det.errors import ConfigError, TrainingStoppedError
from mbv2det.structures import Batch
from mbv2det.weights.state_dict import load_tensors

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"


class Checkpoints(Checkpoint):
    """Writes a checkpoint at the end of every epoch, and after every so many steps within one.

    After the last step of an epoch it waits for the validation, whose score belongs to the state of
    the run. A checkpoint that cannot be written, for instance on a full disk, is a warning: the
    training goes on, and the checkpoints before it stay.

    Args:
        folder: Folder of the checkpoints.
        every_n_steps: Optimiser steps between two checkpoints within an epoch; 0 for none.
        stop: Tells of the signal by which the system or the user ends the run.
    """

    def __init__(self, folder: Path, every_n_steps: int, stop: "StopSignal") -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.stop = stop
        self._step_before = 0

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Makes a run that was saved after the last step of an epoch start with the next one.

        Where `max_steps` is set, Lightning would look for the rest of the complete epoch, find
        none, and count another epoch.
        """
        loops = checkpoint["loops"]["fit_loop"]
        epoch, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
        if epoch["total"]["processed"] == epoch["total"]["started"]:
            for counts in epoch.values():
                counts["completed"] = counts["processed"]
            batches["current"] = dict.fromkeys(batches["current"], 0)
            batches["is_last_batch"] = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to listen for signals, instead of Lightning, which would not save first.

        Lightning counts the batches of an epoch. A run that resumes within one, with another batch
        size or number of processes, has to count those that are left.
        """
        self.stop.listen()
        taken = trainer.datamodule.num_taken_batches  # type: ignore[attr-defined]
        current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        if taken and current.processed != taken:
            unfinished = current.processed - current.completed  # saved within the hooks of a batch
            current.ready = current.started = current.processed = taken
            current.completed = taken - unfinished

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remembers the step, since a batch may be one of several of an optimiser step."""
        self._step_before = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Saves if it is time to, or if the run ends here.

        Raises:
            TrainingStoppedError: If a signal asked the run to end.
        """
        step = trainer.global_step
        if step == self._step_before or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        stopped = self._is_stopped(trainer)
        is_due = self.every_n_steps > 0 and step % self.every_n_steps == 0
        if is_due or stopped or step == trainer.max_steps or trainer.should_stop:
            self._save(trainer)
        if stopped:
            raise TrainingStoppedError(self.stop.number)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the state after a complete epoch.

        Raises:
            TrainingStoppedError: If a signal asked the run to end.
        """
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)
        if self._is_stopped(trainer):
            raise TrainingStoppedError(self.stop.number)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stops listening for signals."""
        self.stop.ignore()

    def _is_stopped(self, trainer: pl.Trainer) -> bool:
        """Returns whether any process got a signal; all have to stop at the same step."""
        received = self.stop.number != 0
        if trainer.world_size == 1:
            return received
        return trainer.strategy.reduce_boolean_decision(received, all=False)

    def _save(self, trainer: pl.Trainer) -> None:
        part = self.folder / f"{LAST}.part"
        try:
            trainer.save_checkpoint(part, weights_only=False)
            if trainer.is_global_zero:
                _flush(part)
                last = self.folder / LAST
                if last.is_file():
                    last.replace(self.folder / PREVIOUS)
                part.replace(last)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            log(
                f"warning: step {trainer.global_step}: the checkpoint cannot be written to "
                f"{self.folder} ({error}); the training goes on, and the checkpoints before it stay"
            )


class StopSignal:
    """The signals SIGINT (Ctrl-C) and SIGTERM (a scheduler's), which end a run after it has saved.

    A second signal ends it at once.

    Attributes:
        number: Number of the signal that was received; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._handlers: dict[int, Any] = {}

    def listen(self) -> None:
        """Starts to listen."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._receive)

    def ignore(self) -> None:
        """Gives the signals back to the handlers that they had."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        log(
            f"{signal.Signals(number).name}: the run saves and ends after this step, or after the "
            "validation that is running; again to end it at once"
        )


def newest_readable(file: Path) -> Path:
    """Returns a checkpoint, or the one before it if that cannot be read, and says so.

    Args:
        file: Checkpoint to resume from. Only `last.ckpt` has one before it.

    Raises:
        ConfigError: If neither can be read.
    """
    candidates = [file, file.with_name(PREVIOUS)] if file.name == LAST else [file]
    candidates = [path for path in candidates if path.is_file()]
    reasons: list[str] = []
    for path in candidates:
        try:
            content = load_tensors(path)
        except ConfigError as error:
            reasons.append(str(error))
            continue
        if path != file:
            what = reasons[0] if reasons else f"{file}: not found"
            log(f"warning: {what}; the run resumes from {path}, step {content.get('global_step')}")
        return path
    raise ConfigError(f"--resume: {'; '.join(reasons) or f'{file}: not found'}")


def has_checkpoint(folder: Path) -> bool:
    """Returns whether a folder holds a checkpoint, readable or not."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def _flush(path: Path) -> None:
    """Waits until a file is on the disk, so that not even a power cut leaves half of it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
