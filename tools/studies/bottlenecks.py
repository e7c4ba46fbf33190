r"""Trains MobileNetV2 with and without linear bottlenecks and shortcuts, and compares the results.

    python tools/studies/bottlenecks.py configs/ssdlite_shapes.yaml --trainer.max_epochs=6 \
        --data.image_size=160 --seeds=2

The ablation of the MobileNetV2 paper (section 6.4, figure 6), on detection instead of
classification. Five networks of equal size are trained with the same settings and seeds:

- paper: linear bottlenecks, shortcuts between bottlenecks;
- relu6: ReLU6 after every bottleneck, which destroys part of the information in its few channels;
- expansions: shortcuts between the expansions of the blocks instead of their bottlenecks;
- none: no shortcuts;
- identity: the paper's network with blocks that are the identity at the start, the default of this
  toolkit. Only the paper's block can start like this; in the other four networks, every batch norm
  starts with weight one.

CONFIG needs a detection head. The study sets backbone.bottleneck, backbone.shortcut,
backbone.zero_init_residual and seed; by default it validates after every epoch. Prints AP, AP50 and
the training loss of the last epoch (mean and standard deviation over the seeds). After every run it
writes bottlenecks.json and bottlenecks.png (thin lines: seeds; thick lines: means) into --out. Runs
that have finished there are not trained again.
"""

import csv
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from repeated_runs import add_seeds_option, mean_and_deviation, result_of, seeds_of
from rich.console import Console
from rich.table import Table

from mbv2det.atomic_write import atomic_write, write_json
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.console import log, one_line_errors
from mbv2det.errors import ConfigError
from mbv2det.parsing import first_argument_as_config
from mbv2det.tasks import DetectionTask

VARIANTS = {
    "paper": ("linear", "bottleneck", False),
    "relu6": ("relu6", "bottleneck", False),
    "expansions": ("linear", "expansion", False),
    "none": ("linear", "none", False),
    "identity": ("linear", "bottleneck", True),
}
_LABELS = {
    "paper": "paper: linear, shortcut between bottlenecks",
    "relu6": "ReLU6 after bottlenecks",
    "expansions": "shortcut between expansions",
    "none": "no shortcut",
    "identity": "paper, blocks start as the identity",
}
_LINE_STYLES = {"paper": "-", "relu6": "--", "expansions": "-.", "none": ":", "identity": "-"}


@dataclass(frozen=True)
class Epoch:
    """Metrics of one epoch of a run.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        AP: COCO's AP on the validation split; None if the epoch was not validated.
        AP50: AP at an IoU of 0.5 on the validation split; None if the epoch was not validated.
        val_loss: Loss on the validation split; None if the epoch was not validated.
        train_loss: Mean training loss over the logged steps; None if no step was logged.
    """

    epoch: int
    AP: float | None
    AP50: float | None
    val_loss: float | None
    train_loss: float | None


Curve = Sequence[Epoch]


def read_curve(rows: Path) -> list[Epoch]:
    """Reads the metrics.csv of a run, epoch by epoch."""
    logged: dict[int, dict[str, list[float]]] = {}
    with rows.open(newline="") as file:
        for row in csv.DictReader(file):
            if not row.get("epoch"):
                continue
            epoch = logged.setdefault(int(row["epoch"]), {})
            for key, value in row.items():
                if value:
                    epoch.setdefault(key, []).append(float(value))

    def mean(epoch: int, key: str) -> float | None:
        values = logged[epoch].get(key)
        return statistics.fmean(values) if values else None

    return [
        Epoch(
            epoch + 1,
            mean(epoch, "val/AP"),
            mean(epoch, "val/AP50"),
            mean(epoch, "val/loss"),
            mean(epoch, "train/loss"),
        )
        for epoch in sorted(logged)
    ]


def variant_settings(
    parser: SettingsParser, arguments: Sequence[str], variant: str, seed: int
) -> Settings:
    """Returns the user's settings with the network of a variant and a seed."""
    bottleneck, shortcut, zero_init = VARIANTS[variant]
    return parser.parse(
        [
            *arguments,
            f"--backbone.bottleneck={bottleneck}",
            f"--backbone.shortcut={shortcut}",
            f"--backbone.zero_init_residual={str(zero_init).lower()}",
            f"--seed={seed}",
        ]
    )


def check(settings: Settings) -> None:
    """Checks that the runs will produce the metrics that the study compares.

    Raises:
        ConfigError: If there is no detection head, or the runs would write no metrics.csv.
    """
    if DetectionTask.name not in settings.config.heads:
        raise ConfigError("heads.detection: expected a head, got none")
    for key, value in (("logger", None), ("fast_dev_run", False)):
        got = settings.trainer[key]
        if got != value:
            raise ConfigError(
                f"trainer.{key}: expected {json.dumps(value)}, with which runs write the "
                f"metrics.csv that the study reads, got {got}"
            )


def run(settings: Settings, folder: Path) -> list[Epoch]:
    """Trains one variant with one seed, or reads the result of an earlier call.

    Args:
        settings: Settings of the run.
        folder: Output folder of this variant and seed.

    Returns:
        The metrics of every epoch.

    Raises:
        ConfigError: If the folder holds a run with other settings.
    """
    records = result_of(
        settings, folder, lambda run: [asdict(epoch) for epoch in read_curve(run / "metrics.csv")]
    )
    return [Epoch(**record) for record in records]


def last(curves: Mapping[int, Curve], key: str) -> list[float]:
    """Returns the last value of a metric in each curve that has one."""
    values = [[v for e in curve if (v := getattr(e, key)) is not None] for curve in curves.values()]
    return [column[-1] for column in values if column]


def print_table(curves: Mapping[str, Mapping[int, Curve]]) -> None:
    """Prints one row for each variant."""
    table = Table(title="After the last epoch: mean ± standard deviation over the seeds")
    table.add_column("variant")
    for heading in ("seeds", "AP", "AP50", "training loss"):
        table.add_column(heading, justify="right")
    for variant, by_seed in curves.items():
        cells = [mean_and_deviation(last(by_seed, key)) for key in ("AP", "AP50", "train_loss")]
        table.add_row(_LABELS[variant], str(len(by_seed)), *cells)
    Console().print(table)


def draw(curves: Mapping[str, Mapping[int, Curve]]) -> Figure:
    """Returns a figure of validation AP (left) and validation loss (right) over the epochs."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle("SSDLite with and without linear bottlenecks and shortcuts between them")
    left, right = figure.subplots(1, 2)
    _draw_metric(left, curves, "AP")
    left.set_title("AP on the validation images (higher is better)", fontsize=10)
    _draw_metric(right, curves, "val_loss")
    right.set_title("Loss on the validation images (lower is better)", fontsize=10)
    right.legend(fontsize=9)  # all curves fall, so the upper right corner is free
    return figure


def _draw_metric(axes: Axes, curves: Mapping[str, Mapping[int, Curve]], key: str) -> None:
    colours = dict(zip(VARIANTS, color_sequences["petroff10"], strict=False))
    for variant, by_seed in curves.items():
        style: dict[str, Any] = {"color": colours[variant], "linestyle": _LINE_STYLES[variant]}
        by_epoch: dict[int, list[float]] = {}
        for curve in by_seed.values():
            points = {e.epoch: v for e in curve if (v := getattr(e, key)) is not None}
            axes.plot(*zip(*points.items(), strict=True), linewidth=0.8, alpha=0.5, **style)
            for epoch, value in points.items():
                by_epoch.setdefault(epoch, []).append(value)
        means = [statistics.fmean(values) for values in by_epoch.values()]
        axes.plot(list(by_epoch), means, marker="o", linewidth=2.5, label=_LABELS[variant], **style)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def write(curves: Mapping[str, Mapping[int, Curve]], out: Path) -> None:
    """Writes the numbers of the table and the figure."""
    document = {
        variant: {
            "AP": last(by_seed, "AP"),
            "AP50": last(by_seed, "AP50"),
            "train_loss": last(by_seed, "train_loss"),
            "curves": {str(s): [asdict(e) for e in curve] for s, curve in by_seed.items()},
        }
        for variant, by_seed in curves.items()
    }
    write_json(out / "bottlenecks.json", document)
    with atomic_write(out / "bottlenecks.png") as part:
        draw(curves).savefig(part, dpi=120, format="png")


@one_line_errors
def main() -> None:
    """Runs the study."""
    parser = SettingsParser(__doc__ or "")
    add_seeds_option(parser)
    parser.add_option(
        "--out", type=Path, default=Path("runs/studies/bottlenecks"), help="output folder"
    )
    command_line = first_argument_as_config(sys.argv[1:])
    default = "--trainer.check_val_every_n_epoch=1"
    arguments = [*command_line[:2], default, *command_line[2:]]
    settings = parser.parse(arguments)
    check(settings)
    options = settings.options
    curves: dict[str, dict[int, Curve]] = {}
    for seed in seeds_of(options.seeds):  # every variant once before the next seed: an early figure
        for variant in VARIANTS:
            settings = variant_settings(parser, arguments, variant, seed)
            log(f"{variant}, seed {seed}")
            folder = options.out / variant / f"seed_{seed}"
            curves.setdefault(variant, {})[seed] = run(settings, folder)
            write(curves, options.out)
    print_table(curves)
    log(f"written to {options.out}")


if __name__ == "__main__":
    main()
