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
    model: MultiTaskModel, runtime: GraphRuntime, images: UInt8[Tensor, "B 3 H W"]
) -> dict[str, float]:
    """Returns the largest difference of each output of an exported file from PyTorch in float32.

    Args:
        model: The trained network.
        runtime: Runs the exported file.
        images: RGB images of the network's input size.
    """
    info = runtime.info
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    layers = output_layers(tasks, runtime.graph.choices, info.preprocess.size)
    network = ExportedNetwork(model, layers).eval()
    parts = images.split(runtime.max_batch or len(images))
    got = _joined([runtime(part) for part in parts])
    expected = network.named(images)
    return {
        name: value
        for layer in network.output_layers.values()
        for name, value in layer.differences(expected, got).items()
    }


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


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
