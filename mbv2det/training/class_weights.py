"""Weights of the classes in the losses (`heads.<task>.class_weights`).

`balanced` gives a class of n objects or pixels a weight in proportion to 1 / sqrt(n), at most ten
times that of a class of mean frequency and at least a tenth of it. The weights are then scaled so
that their mean over all objects or pixels is 1: the loss keeps its scale.

Source: Mahajan et al. 2018 (arXiv:1805.00932) sample the classes by this power; Cui et al. 2019
(arXiv:1901.05555), section 1, name it as the common weight of a loss. The effective number of
samples that they propose does not suit pixels: of their millions it makes equal numbers. Differs:
the bounds.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int64

from mbv2det.data.annotations import Annotations
from mbv2det.errors import ConfigError, DataError
from mbv2det.labels import LabelMap
from mbv2det.tasks.task import TrainableTask

_MOST = 10.0  # times the weight of a class of mean frequency
_SHOWN = 12  # classes in the log


def apply_class_weights(task: TrainableTask, training: Annotations) -> str | None:
    """Gives the loss of a task the configured weights of the classes.

    Args:
        task: Task to train.
        training: Training split, in the classes of the task.

    Returns:
        A line for the log; None if all classes have the same weight.

    Raises:
        ConfigError: If a name is no class, or a weight is not above 0.
    """
    configured, key = task.class_weights, f"heads.{task.name}.class_weights"
    if configured == "none":
        return None
    if isinstance(configured, Mapping):
        weights = named_weights(configured, task.label_map, key)
    else:
        weights = balanced_weights(task.count_classes(training))
    task.weigh_classes(tuple(weights.tolist()))
    order = np.argsort(-weights, kind="stable")
    shown = [f"{task.label_map.names[i]} {weights[i]:.2f}" for i in order[:_SHOWN]]
    rest = [f"... down to {weights[order[-1]]:.2f}"] if len(order) > _SHOWN else []
    return f"weights of the classes: {', '.join(shown + rest)} ({key})"


def balanced_weights(counts: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """Returns weights by the square root of the inverse frequency, of mean 1 over what is counted.

    Args:
        counts: Number of objects or pixels of each class; a class of none has the largest weight.
    """
    total = counts.sum()
    if not total:
        return np.ones(len(counts))
    mean = total / np.count_nonzero(counts)
    weights = np.sqrt(mean / np.maximum(counts, 1)).clip(1 / _MOST, _MOST)
    return weights * total / (weights * counts).sum()


def named_weights(
    configured: Mapping[str, float], label_map: LabelMap, key: str
) -> Float64[np.ndarray, " K"]:
    """Returns the weight of each class: as configured, else 1.

    Args:
        configured: Weights by name of the class.
        label_map: All classes.
        key: Name of the setting, for messages.

    Raises:
        ConfigError: If a name is no class, or a weight is not above 0.
    """
    try:
        label_map.choose(tuple(configured))
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from None
    weights = np.ones(len(label_map))
    for name, weight in configured.items():
        if not 0 < weight < np.inf:
            raise ConfigError(f"{key}.{name}: expected a number above 0, got {weight}")
        weights[label_map.label_of_name[name]] = weight
    return weights
