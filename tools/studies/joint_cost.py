"""Times the forward pass of a joint model against its two tasks apart, interleaved in one run.

    python tools/studies/joint_cost.py CONFIG [--key.sub=value ...]

CONFIG has both heads. Prints medians over --rounds of one image in evaluation mode, and the ratio
of the joint pass to the sum of the detector's and the segmenter's. The segmenter runs at CONFIG's
output stride; so does the joint backbone, while the detector alone runs at stride 32, as it would.
"""

import statistics
import sys
import time
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from mbv2det.build import build_model, build_preprocess
from mbv2det.cli.session import ConfigParser, one_line_errors
from mbv2det.config import Config, HeadsConfig
from mbv2det.labels import VOC_NAMES, LabelMap

_LABELS = {
    "detection": LabelMap.of_masks(VOC_NAMES),
    "segmentation": LabelMap.of_masks(("background", *VOC_NAMES)),
}


def variants(config: Config) -> dict[str, Config]:
    """The joint model and each of its tasks alone."""
    detector = replace(
        config,
        backbone=replace(config.backbone, output_stride=32),
        heads=HeadsConfig(detection=config.heads.detection),
    )
    segmenter = replace(config, heads=HeadsConfig(segmentation=config.heads.segmentation))
    return {"joint": config, "detection": detector, "segmentation": segmenter}


@torch.inference_mode()
def seconds(model: nn.Module, images: torch.Tensor) -> float:
    """Of one pass."""
    start = time.perf_counter()
    model(images)
    return time.perf_counter() - start


@one_line_errors
def main() -> None:
    """Times and prints."""
    parser = ConfigParser(__doc__ or "")
    parser.add_option("--rounds", type=int, default=40, help="passes of each model")
    settings = parser.parse(sys.argv[1:])
    config = settings.config
    torch.manual_seed(config.seed)
    models = {
        name: build_model(one, build_preprocess(one.data), _LABELS).eval()
        for name, one in variants(config).items()
    }
    images = torch.randint(0, 256, (1, 3, *config.data.size), dtype=torch.uint8)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(settings.options.rounds + 3):
        for name, model in models.items():
            taken = seconds(model, images)
            if turn >= 3:  # the first passes allocate
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
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
