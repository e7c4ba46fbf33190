"""The check of an exported file: its outputs and its metrics beside those of PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from mbv2det.build import build_tasks
from mbv2det.deploy.graph import ExportedNetwork, output_layers
from mbv2det.deploy.runtimes.runtime import GraphRuntime
from mbv2det.model import MultiTaskModel
from mbv2det.tasks import TrainableTask


def output_differences(
    model: MultiTaskModel, runtime: GraphRuntime, images: Sequence[UInt8[Tensor, "1 3 _ _"]]
) -> dict[str, float]:
    """Returns the largest difference of each output of an exported file from PyTorch in float32.

    Args:
        model: The trained network.
        runtime: Runs the exported file.
        images: RGB images that the file takes.
    """
    info = runtime.info
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    layers = output_layers(tasks, runtime.graph.choices)
    network = ExportedNetwork(model, layers, info.preprocess, resizes=runtime.graph.resizes).eval()
    batches = [torch.cat(list(images))] if runtime.max_batch is None else images
    largest: dict[str, float] = {}
    for batch in batches:
        expected, got = network.named(batch), runtime(batch)
        for layer in network.output_layers.values():
            for name, value in layer.differences(expected, got).items():
                largest[name] = max(value, largest.get(name, 0.0))
    return largest


def metric_changes(
    tasks: Sequence[TrainableTask], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Returns each task's main metric in PyTorch, in the exported file, and the change.

    Args:
        tasks: Tasks that were measured.
        before: Content of metrics.json, of PyTorch.
        after: Content of metrics.json, of the exported file.
    """
    changes = {}
    for task in tasks:
        values = [document[task.name][task.monitor] for document in (before, after)]
        difference = None if None in values else values[1] - values[0]
        changes[task.monitor] = {"torch": values[0], "exported": values[1], "change": difference}
    return changes
