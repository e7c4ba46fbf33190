"""The check of the metrics that callbacks such as EarlyStopping watch, before a training starts."""

import difflib
import warnings
from collections.abc import Sequence

from lightning.pytorch.callbacks import Callback

from mbv2det.errors import ConfigError
from mbv2det.training.module import DenseModule


def check_monitors(callbacks: Sequence[Callback], module: DenseModule) -> None:
    """Refuses callbacks that watch a metric which is never logged, or in the wrong direction.

    Args:
        callbacks: The user's callbacks.
        module: Module whose metrics are logged.

    Raises:
        ConfigError: With the names that there are.
    """
    names = logged_names(module)
    for callback in callbacks:
        monitor, kind = getattr(callback, "monitor", None), type(callback).__name__
        if not isinstance(monitor, str):
            continue
        if monitor not in names:
            near = difflib.get_close_matches(monitor, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"trainer.callbacks: {kind}.monitor: expected one of {', '.join(names)}, got "
                f"{monitor}{hint}"
            )
        mode, best = getattr(callback, "mode", None), "min" if monitor.endswith("loss") else "max"
        if mode in ("min", "max") and mode != best:
            raise ConfigError(
                f"trainer.callbacks: {kind}.mode: expected {best} for {monitor}, got {mode}"
            )


def logged_names(module: DenseModule) -> list[str]:
    """Returns the names of all losses and metrics that a training logs."""
    terms = [term for task in module.tasks for term in task.loss_terms]
    losses = [f"{term}_loss" for term in terms] + ["loss"]
    metrics = []
    for metric in module.metrics.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a metric without images
            values = metric.compute()
        metric.reset()
        metrics += [name for name, v in values.items() if v is None or isinstance(v, float)]
    validation = ["score", *metrics, *losses]
    return [f"val/{name}" for name in validation] + [f"train/{name}" for name in losses]
