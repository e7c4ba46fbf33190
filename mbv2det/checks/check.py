"""Every check of a data set, one after the other; no fault ends them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mbv2det.build import (
    build,
    build_preprocess,
    build_tasks,
    label_maps_of,
    read_split,
    trainable,
)
from mbv2det.checks.annotation import (
    check_hidden_files,
    check_objects,
    check_repairs,
    with_sizes,
)
from mbv2det.checks.classes import TRAIN, check_unknown_classes
from mbv2det.checks.files import check_files, check_labels, check_leaks
from mbv2det.checks.finding import STATISTICS, UNREADABLE_SPLIT, Finding
from mbv2det.checks.image_files import look_at_all, look_at_image, measured_sizes
from mbv2det.checks.report import Report
from mbv2det.checks.sizes import describe_sizes
from mbv2det.checks.truth import check_truth
from mbv2det.config import Config
from mbv2det.data.annotations import Annotations
from mbv2det.errors import DataError
from mbv2det.preprocess import Preprocessor
from mbv2det.tasks.task import TrainableTask
from mbv2det.weights.header import WeightsInfo

VAL = "val"


def check_data(config: Config, show: Callable[[str], None]) -> Report:
    """Checks the training and the validation split of a configuration.

    Args:
        config: Settings of the data, the tasks and the network input.
        show: Is given a line for each step.

    Raises:
        ConfigError: If the settings do not say where the data is.
    """
    splits: dict[str, Annotations] = {}
    findings: list[Finding] = []
    for name, settings in ((TRAIN, config.data.train), (VAL, config.data.val)):
        try:
            splits[name] = read_split(config.data, settings, f"data.{name}", config.tasks)
            show(f"{name}: {splits[name].summary()}")
        except DataError as error:
            findings.append(Finding(UNREADABLE_SPLIT, name, str(error)))
    findings += check_hidden_files(Path(config.data.root))
    facts = {}
    for name, split in splits.items():
        facts[name] = look_at_all(split, look_at_image, f"Reading the images of {name}")
        findings += check_files(split, facts[name], name)
        if split.masks is not None:
            findings += check_labels(split, facts[name], name)
        findings += check_repairs(split, name)
        splits[name] = with_sizes(split, list(measured_sizes(split, facts[name])))
        findings += check_objects(splits[name], name)
    findings += _check_classes_of_both(splits, config)
    findings += check_leaks(splits, facts)
    for name, split in splits.items():
        findings += _check_with_network(split, config, name)
    return Report(splits, facts, findings)


def tasks_of(split: Annotations, config: Config) -> list[TrainableTask]:
    """Returns the configured tasks that a split is annotated for, in its own classes."""
    label_maps = label_maps_of(split, config.tasks)
    model = config.model()
    heads = {name: head for name, head in model.heads.items() if name in label_maps}
    return trainable(build_tasks(replace(model, heads=heads), config.eval.thresholds(), label_maps))


def _check_classes_of_both(splits: Mapping[str, Annotations], config: Config) -> Iterator[Finding]:
    if TRAIN not in splits or VAL not in splits:
        return
    own = label_maps_of(splits[VAL], config.tasks)
    for task, known in label_maps_of(splits[TRAIN], config.tasks).items():
        yield from check_unknown_classes(known, splits[VAL], own[task], VAL)


def _check_with_network(split: Annotations, config: Config, name: str) -> Iterator[Finding]:
    """Feeds the ground truth through the evaluator, and describes it for the network."""
    label_maps = label_maps_of(split, config.tasks)
    if not label_maps:
        return
    info = WeightsInfo(
        config.model(), build_preprocess(config.data), label_maps, config.eval.thresholds()
    )
    model, all_tasks = build(info)
    tasks = trainable(all_tasks)
    yield from check_truth(split, tasks, config.eval, name)
    preprocessor = Preprocessor(info.preprocess)
    if split.objects is not None and len(split.objects):
        yield Finding(STATISTICS, name, describe_sizes(split, preprocessor))
    if name == TRAIN:
        yield from _describe(model, tasks, split, preprocessor)


@torch.no_grad()
def _describe(
    model: torch.nn.Module,
    tasks: list[TrainableTask],
    split: Annotations,
    preprocessor: Preprocessor,
) -> Iterator[Finding]:
    """Yields the lines about the data that training prints: anchors, shares of labels."""
    height, width = preprocessor.spec.size
    outputs = model.eval()(torch.zeros(1, 3, height, width, dtype=torch.uint8))
    for task in tasks:
        try:
            line = task.describe_data(outputs[task.name], split, preprocessor)
            yield Finding(STATISTICS, TRAIN, line)
        except DataError as error:
            yield Finding(UNREADABLE_SPLIT, TRAIN, str(error))
