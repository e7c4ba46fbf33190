"""Lightning's Trainer with this toolkit's defaults."""

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar, TQDMProgressBar

from mbv2det.config import DataConfig
from mbv2det.console import log
from mbv2det.errors import ConfigError, DataError

_PLAIN_REFRESH = 20  # batches between updates of a progress bar that is not on a terminal


def make_trainer(
    arguments: Mapping[str, Any], callbacks: Sequence[Callback], **defaults: Any
) -> Trainer:
    """Builds Lightning's trainer from the user's arguments.

    Args:
        arguments: The user's arguments; None for an argument that the user does not set.
        callbacks: Callbacks of this toolkit, added after the user's own.
        defaults: Values for arguments that the user does not set.

    Raises:
        ConfigError: If Lightning rejects an argument.
    """
    _hide_known_warnings()
    if arguments["overfit_batches"]:
        raise ConfigError(
            "trainer.overfit_batches: expected 0, got "
            f"{arguments['overfit_batches']}: it would replace the order of the images; to train "
            "on few images, give a short data.train.list or an annotation file of few images"
        )
    arguments = dict(arguments) | {k: v for k, v in defaults.items() if arguments[k] is None}
    bars: list[Callback] = []
    if arguments["enable_progress_bar"] is not False:
        bars = [RichProgressBar() if sys.stdout.isatty() else TQDMProgressBar(_PLAIN_REFRESH)]
    arguments["callbacks"] = [*(arguments["callbacks"] or []), *callbacks, *bars]
    # Lightning would wrap our samplers in one that pads the epoch with repeats.
    arguments["use_distributed_sampler"] = False
    with lightning_errors():
        try:
            return Trainer(**arguments)
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigError(_one_line(error)) from None


@contextmanager
def lightning_errors() -> Iterator[None]:
    """Raises Lightning's errors about settings as `ConfigError`.

    Lightning has a class of its own for only some of them. The others are told by where they are
    raised: in its code, not in ours or in that of torch.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(_one_line(error)) from None
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        if isinstance(error, ConfigError | DataError) or not _is_raised_by_lightning(error):
            raise
        raise ConfigError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip().strip("'")
    return f"trainer: {text}"


def _is_raised_by_lightning(error: Exception) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).startswith("lightning.")


def num_loader_workers(data: DataConfig) -> int:
    """Returns the number of workers of each data loader: as configured, at most one per core."""
    cores = os.cpu_count() or 1
    if data.num_workers > cores:
        log(f"data.num_workers: {data.num_workers} configured; {cores} used, one per core")
    return min(data.num_workers, cores)


def default_precision(accelerator: Any) -> str:
    """Returns Lightning's name of bfloat16 if the hardware multiplies it natively, else of float32.

    Args:
        accelerator: Value of the Trainer's argument: "auto", "gpu", "cuda", "cpu", ...
    """
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif hasattr(torch.cpu, "get_capabilities"):
        features = torch.cpu.get_capabilities()
        native = bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    else:  # torch before 2.10 has no public function for this
        native = torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"


def _hide_known_warnings() -> None:
    """Hides advertisements and known warnings that a user need not act on."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 with a newer torch
        r".*does not have many workers.*",
        r"Found \d+ module\(s\) in eval mode at the start of training.*",  # frozen norms
        r"Experiment logs directory .* exists and is not empty.*",
        r"Checkpoint directory .* exists and is not empty.*",
        r".*is not supported by the model summary.*",
        r"You're resuming from a checkpoint that ended before the epoch ended.*",  # it is exact
        r".*smaller than the logging interval.*",
        r"Dynamo detected a call to a `functools.lru_cache`.*",  # of functions of sizes alone
        r".*sync_dist=True.*",  # our validation metrics are already those of all processes
    ):
        warnings.filterwarnings("ignore", message=message)
