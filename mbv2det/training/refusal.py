"""A run folder that stays as it was if the run is refused before its first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only


class Started(Callback):
    """Callback that knows whether a training step was reached."""

    def __init__(self) -> None:
        self.is_true = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers that settings, data and checkpoint have been accepted."""
        self.is_true = True


@contextmanager
def unchanged_if_refused(folder: Path) -> Iterator[Started]:
    """Undoes what happened to the files of a run folder if the block fails before a training step.

    Args:
        folder: Folder of the run; a folder that was empty is removed.

    Yields:
        A callback for the trainer.
    """
    before = {path: path.read_bytes() for path in _settings_and_curves(folder)}
    present = set(folder.iterdir())
    started = Started()
    try:
        yield started
    except BaseException:
        if not started.is_true:
            _restore(folder, present, before)
        raise


def _settings_and_curves(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in (".yaml", ".csv")]


@rank_zero_only
def _restore(folder: Path, present: set[Path], before: dict[Path, bytes]) -> None:
    for path in set(folder.iterdir()) - present:
        if path.is_file():
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    if not present:
        folder.rmdir()
