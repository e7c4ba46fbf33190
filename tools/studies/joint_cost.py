"""Compares the time of a joint model with that of separate models of its two tasks.

    python tools/studies/joint_cost.py CONFIG [--key.sub=value ...]

CONFIG needs both heads. Prints the median time of a forward pass of one image in evaluation mode
over --rounds passes, and the ratio of the joint model's to the sum of the detector's and the
segmenter's. The joint model and the segmenter run at the output stride of CONFIG, the detector at
output stride 32. The passes of the models are interleaved in one process.
"""

import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from mbv2det.build import build_model, build_preprocess
from mbv2det.cli.settings import SettingsParser
from mbv2det.config import Config
from mbv2det.console import one_line_errors
from mbv2det.labels import VOC_NAMES, LabelMap, with_background
from mbv2det.tasks import DetectionTask, SegmentationTask

_WARM_UP_ROUNDS = 3  # not timed: the first passes allocate memory
_DETECTION, _SEGMENTATION = DetectionTask.name, SegmentationTask.name
_LABEL_MAPS = {
    _DETECTION: LabelMap.of_masks(VOC_NAMES),
    _SEGMENTATION: LabelMap.of_masks(with_background(VOC_NAMES)),
}


def variants(config: Config) -> dict[str, Config]:
    """Returns the configurations of the joint model and of each task alone, by name."""
    detector, segmenter = (
        replace(config, heads={task: config.heads[task]}) for task in (_DETECTION, _SEGMENTATION)
    )
    detector = replace(detector, backbone=replace(config.backbone, output_stride=32))
    return {"joint": config, _DETECTION: detector, _SEGMENTATION: segmenter}


@torch.inference_mode()
def seconds(model: nn.Module, images: torch.Tensor) -> float:
    """Returns the time of one forward pass."""
    start = time.perf_counter()
    model(images)
    return time.perf_counter() - start


def median_seconds(
    models: Mapping[str, nn.Module], images: torch.Tensor, rounds: int
) -> dict[str, float]:
    """Returns the median time of a forward pass of each model; the models take turns."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + _WARM_UP_ROUNDS):
        for name, model in models.items():
            taken = seconds(model, images)
            if turn >= _WARM_UP_ROUNDS:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


@one_line_errors
def main() -> None:
    """Runs the study."""
    parser = SettingsParser(__doc__ or "")
    parser.add_option("--rounds", type=int, default=40, help="timed passes of each model")
    settings = parser.parse(sys.argv[1:])
    config = settings.config
    torch.manual_seed(config.seed)
    models = {
        name: build_model(variant.model(), build_preprocess(variant.data), _LABEL_MAPS).eval()
        for name, variant in variants(config).items()
    }
    images = torch.randint(0, 256, (1, 3, *config.data.size), dtype=torch.uint8)
    medians = median_seconds(models, images, settings.options.rounds)
    table = Table("model", "median ms", "parameters")
    for name, value in medians.items():
        count = sum(p.numel() for p in models[name].parameters())
        table.add_row(name, f"{1000 * value:.1f}", f"{count:,}")
    console = Console()
    console.print(table)
    ratio = medians["joint"] / (medians["detection"] + medians["segmentation"])
    console.print(f"joint / (detection + segmentation): {ratio:.2f}")


if __name__ == "__main__":
    main()
