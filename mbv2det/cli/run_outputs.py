"""What a training run writes while it runs: averaged weights, checkpoints, logs and pictures."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from PIL import Image
from torch import nn

from mbv2det.cli.run_parts import RunParts
from mbv2det.data.annotations import Annotations
from mbv2det.data.dataset import read_sample
from mbv2det.deploy.pictures import compare_with_annotation
from mbv2det.run_files import CHECKPOINTS
from mbv2det.structures import SampleKey
from mbv2det.tasks.task import Prediction, TrainableTask
from mbv2det.training.callbacks import (
    BestWeights,
    DamagedFileWarnings,
    Ema,
    PredictionPictures,
    ValidateLastState,
)
from mbv2det.training.checkpoints import Checkpoints, StopSignal
from mbv2det.training.epoch_table import EpochTable
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights


def training_callbacks(
    parts: RunParts, folder: Path, tasks: Sequence[TrainableTask]
) -> list[Callback]:
    """Returns the callbacks for weight averaging, saving, pictures and messages."""
    settings, validation = parts.settings, parts.validation
    decay = settings.config.optim.ema_decay
    ema = Ema(decay) if decay else None
    callbacks: list[Callback] = [
        *([ema] if ema else []),
        BestWeights(folder, partial(_save, parts.info), ema),
        ValidateLastState(),
        EpochTable(),
        PredictionPictures(validation, partial(_picture, validation, tasks)),
        DamagedFileWarnings({"train": parts.training, "val": validation}),
    ]
    if settings.trainer["logger"] is not False:
        callbacks.append(LearningRateMonitor("step"))
    if settings.trainer["enable_checkpointing"] is not False:
        callbacks.append(
            Checkpoints(
                folder / CHECKPOINTS, settings.config.checkpoint.every_n_steps, StopSignal()
            )
        )
    return callbacks


def _save(info: WeightsInfo, path: Path, model: nn.Module, metrics: dict[str, Any]) -> None:
    save_weights(path, model.state_dict(), replace(info, metrics=metrics))


def _picture(
    split: Annotations, tasks: Sequence[TrainableTask], index: int, prediction: Prediction
) -> Image.Image:
    return compare_with_annotation(read_sample(split, SampleKey(0, index)), prediction, tasks)
