"""The splits of a training: read, checked and described."""

from collections.abc import Mapping, Sequence

import numpy as np

from mbv2det.build import label_maps_of, read_split, relabel
from mbv2det.checks.before_training import describe_unusable, refuse_misleading, unusable_files
from mbv2det.config import Config, DataConfig
from mbv2det.console import log
from mbv2det.data.annotations import Annotations
from mbv2det.errors import DataError
from mbv2det.tasks import trainable_task


def read_splits(config: Config) -> tuple[Annotations, Annotations]:
    """Reads the training and validation split with the same classes; logs counts and faults."""
    outlines = config.augment.copy_paste > 0
    training = read_split(
        config.data, config.data.train, "data.train", config.tasks, outlines=outlines
    )
    check_learnable(training, config.tasks)
    validation = read_split(config.data, config.data.val, "data.val", config.tasks)
    validation = relabel(validation, label_maps_of(training, config.tasks))
    log_split("train", training)
    log_split("val", validation)
    log_unmeasured(validation, config.tasks)
    check_before_training({"train": training, "val": validation}, config.data)
    shared = np.intersect1d(training.files, validation.files)
    if len(shared):
        log(
            f"warning: {len(shared)} of the {len(validation)} validation images are also in the "
            f"training split, such as {shared[0]}: their metrics say little about other images"
        )
    return training, validation


def check_learnable(training: Annotations, tasks: Sequence[str]) -> None:
    """Refuses a training split from which a task can learn nothing.

    Raises:
        DataError: For the first such task.
    """
    for name in tasks:
        reason = trainable_task(name).missing_truth(training)
        if reason is not None:
            raise DataError(f"{training.name}: expected a split to learn {name} from; {reason}")


def log_unmeasured(validation: Annotations, tasks: Sequence[str]) -> None:
    """Warns of tasks that cannot be measured on the validation split."""
    reasons = {name: trainable_task(name).missing_truth(validation) for name in tasks}
    for name, reason in reasons.items():
        if reason is not None:
            log(f"warning: {name} cannot be measured on {validation.name}: {reason}")
    if all(reason is not None for reason in reasons.values()):
        log("warning: no score can choose the best weights: those of the last epoch are kept")


def check_before_training(splits: Mapping[str, Annotations], data: DataConfig) -> None:
    """Refuses splits that would mislead, and files that would end the training.

    Args:
        splits: Splits by name.
        data: Settings of the data set; with `on_error: skip`, files that cannot be used are logged.

    Raises:
        DataError: For the first split with such a fault, with all its files.
    """
    for name, split in splits.items():
        refuse_misleading(split, name)
    for name, split in splits.items():
        unusable = unusable_files(split, name)
        if not unusable:
            continue
        line = describe_unusable(unusable, split, name)
        if data.on_error == "stop":
            raise DataError(f"{line}; check_data lists all, data.on_error=skip leaves them out")
        log(f"{line}; left out")


def log_split(name: str, split: Annotations) -> None:
    """Logs the counts of a split and every fault that was worked around."""
    for line in (split.summary(), *split.faults.lines()):
        log(f"{name}: {line}")
