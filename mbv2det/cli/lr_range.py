"""The range test of the learning rate that `find_lr` runs, by Lightning's tuner.

Source: Smith 2017 (arXiv:1506.01186), section 3.3.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.tuner.tuning import Tuner

from mbv2det.atomic_write import atomic_write
from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import Settings
from mbv2det.console import log
from mbv2det.errors import ConfigError
from mbv2det.extras import require
from mbv2det.training.trainer import default_precision, lightning_errors, make_trainer

_MIN_STEPS = 20  # the first ten losses and the last are not looked at


def find_lr(settings: Settings) -> float:
    """Runs the test, draws the curve and logs the suggestion.

    Returns:
        The suggested learning rate.

    Raises:
        ConfigError: For impossible limits, or if the losses allow no suggestion.
    """
    options = settings.options
    _check(options)
    figure = require("matplotlib.figure", "studies", "find_lr").Figure
    pl.seed_everything(settings.config.seed, workers=True, verbose=False)
    parts = RunParts.read(settings)
    module, data = parts.module(), parts.data()
    # Lightning keeps a checkpoint here while the test runs.
    with tempfile.TemporaryDirectory() as folder, lightning_errors():
        found = Tuner(_trainer(settings, folder)).lr_find(
            module, datamodule=data, min_lr=options.min_lr, max_lr=options.max_lr,
            num_training=options.steps, update_attr=False,
        )  # fmt: skip
    assert found is not None
    suggestion = found.suggestion()
    _draw(figure, found.results["lr"], found.results["loss"], suggestion, Path(options.out))
    log(f"curve: {options.out}")
    if suggestion is None:
        raise ConfigError(
            f"find_lr: expected losses to compare, got {len(found.results['loss'])} before the "
            "loss rose to four times its smallest value; lower --max-lr or take more --steps"
        )
    print(f"suggestion: --optim.lr={suggestion:.2g}")
    return float(suggestion)


def _check(options: Namespace) -> None:
    if options.steps < _MIN_STEPS:
        raise ConfigError(f"--steps: expected at least {_MIN_STEPS}, got {options.steps}")
    if not 0 < options.min_lr < options.max_lr:
        raise ConfigError(
            f"--min-lr, --max-lr: expected two ascending rates above 0, got {options.min_lr:g} and "
            f"{options.max_lr:g}"
        )
    if Path(options.out).suffix.lower() != ".png" or not Path(options.out).parent.is_dir():
        raise ConfigError(f"--out: expected a PNG file in an existing folder, got {options.out}")


def _trainer(settings: Settings, folder: str) -> pl.Trainer:
    """Returns a trainer for one process that neither validates nor logs."""
    changes: dict[str, Any] = {
        "callbacks": None,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "devices": 1,
        "num_nodes": 1,
        "max_epochs": -1,
        "max_steps": settings.options.steps,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    precision = default_precision(settings.trainer["accelerator"])
    return make_trainer(settings.trainer | changes, [], precision=precision)


def _draw(
    figure: Any, rates: Sequence[float], losses: Sequence[float], best: float | None, path: Path
) -> None:
    picture = figure(figsize=(6, 4), layout="constrained")
    axes = picture.add_subplot()
    axes.plot(rates, losses)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
    if best is not None:
        axes.axvline(best, color="tab:red", linestyle="--", label=f"steepest: {best:.2g}")
        axes.legend()
    with atomic_write(path) as temporary:
        picture.savefig(temporary, dpi=150, format="png")
