r"""Trains MobileNetV2 with and without its linear bottlenecks and shortcuts, to see what they do.

    python tools/studies/bottlenecks.py configs/ssdlite_shapes.yaml --trainer.max_epochs=6 \
        --data.image_size=160 --seeds=2

The ablation of the MobileNetV2 paper (section 6.4, figure 6), on detection. Five networks of equal
size are trained alike, with the same seeds:

- paper: linear bottlenecks, shortcuts between them;
- relu6: ReLU6 behind every bottleneck, which destroys part of what so few channels carry;
- expansions: shortcuts between the wide insides of the blocks instead of their thin ends;
- none: no shortcuts;
- identity: the paper's with blocks that start as identity, the default of this toolkit, which only
  this block can. All others start alike: every batch norm at weight one.

CONFIG needs a detection head; the study sets backbone.bottleneck, backbone.shortcut,
backbone.zero_init_residual and seed, and validates after every epoch unless told otherwise. Prints
AP, AP50 and the training loss of the last epoch (mean and standard deviation over the seeds), and
writes bottlenecks.json and bottlenecks.png (thin lines are seeds, thick ones their means) into
--out, after every run. Runs that are finished there are not trained again.
"""

import csv
import json
import statistics
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter, Namespace
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from mbv2det.atomic_write import atomic_write, write_json
from mbv2det.cli.session import ConfigParser, Settings, one_line_errors, say
from mbv2det.cli.train import train
from mbv2det.errors import ConfigError
from mbv2det.parsing import first_argument_as_config

VARIANTS = {
    "paper": ("linear", "bottleneck", False),
    "relu6": ("relu6", "bottleneck", False),
    "expansions": ("linear", "expansion", False),
    "none": ("linear", "none", False),
    "identity": ("linear", "bottleneck", True),
}
_LABELS = {
    "paper": "paper: linear, shortcut between bottlenecks",
    "relu6": "ReLU6 behind bottlenecks",
    "expansions": "shortcut between expansions",
    "none": "no shortcut",
    "identity": "paper, blocks starting as identity",
}
_LINES = {"paper": "-", "relu6": "--", "expansions": "-.", "none": ":", "identity": "-"}


@dataclass(frozen=True)
class Epoch:
    """What one epoch of a run led to.

    Attributes:
        epoch: From 1.
        AP: Of the validation split; like the next two None where the epoch was not validated.
        AP50: The same at an overlap of one half.
        val_loss: Of the validation split.
        train_loss: Mean over the steps that were logged; None if none was.
    """

    epoch: int
    AP: float | None
    AP50: float | None
    val_loss: float | None
    train_loss: float | None


Curve = Sequence[Epoch]


def read_curve(rows: Path) -> list[Epoch]:
    """A run's metrics.csv by epoch."""
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
    parser: ConfigParser, arguments: Sequence[str], variant: str, seed: int
) -> Settings:
    """The user's settings, with a variant's network and a seed."""
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
    """Makes sure that the runs will tell what the study asks.

    Raises:
        ConfigError: If they detect nothing, or write no metrics.csv.
    """
    if settings.config.heads.detection is None:
        raise ConfigError("heads.detection: expected a head, which the study compares, got none")
    for key, value in (("logger", None), ("fast_dev_run", False)):
        got = settings.trainer[key]
        if got != value:
            raise ConfigError(
                f"trainer.{key}: expected {json.dumps(value)}, with which runs write the "
                f"metrics.csv that the study reads, got {got}"
            )


def run(settings: Settings, folder: Path) -> list[Epoch]:
    """Trains, or reads what an earlier call has trained.

    Args:
        settings: Of the run.
        folder: Of this variant and seed.

    Raises:
        ConfigError: If an earlier call had other settings.
    """
    result, asked = folder / "result.json", settings.yaml()
    if result.is_file():
        stored = json.loads(result.read_text())
        if stored["settings"] != asked:
            raise ConfigError(f"--out: {folder} holds a run of other settings; choose another")
        return [Epoch(**epoch) for epoch in stored["curve"]]
    place = settings.trainer | {"default_root_dir": str(folder)}
    trained = train(replace(settings, trainer=place, options=Namespace(resume=None)))
    curve = read_curve(trained / "metrics.csv")
    write_json(result, {"settings": asked, "curve": [asdict(epoch) for epoch in curve]})
    return curve


def last(curves: Mapping[int, Curve], key: str) -> list[float]:
    """A column's last value in the curves that have one."""
    values = [[v for e in curve if (v := getattr(e, key)) is not None] for curve in curves.values()]
    return [one[-1] for one in values if one]


def print_table(curves: Mapping[str, Mapping[int, Curve]]) -> None:
    """One row per variant."""
    table = Table(title="After the last epoch: mean ± standard deviation over the seeds")
    table.add_column("variant")
    for heading in ("seeds", "AP", "AP50", "training loss"):
        table.add_column(heading, justify="right")
    for variant, of_variant in curves.items():
        cells = [_cell(last(of_variant, key)) for key in ("AP", "AP50", "train_loss")]
        table.add_row(_LABELS[variant], str(len(of_variant)), *cells)
    Console().print(table)


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def draw(curves: Mapping[str, Mapping[int, Curve]]) -> Figure:
    """Validation AP and loss over the epochs."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle("Linear bottlenecks and the shortcuts between them: what they do for SSDLite")
    left, right = figure.subplots(1, 2)
    _draw_column(left, curves, "AP")
    left.set_title("AP on the validation images (higher is better)", fontsize=10)
    _draw_column(right, curves, "val_loss")
    right.set_title("Loss on the validation images (lower is better)", fontsize=10)
    right.legend(fontsize=9)  # where all curves fall, its corner is free
    return figure


def _draw_column(axes: Axes, curves: Mapping[str, Mapping[int, Curve]], key: str) -> None:
    colours = dict(zip(VARIANTS, color_sequences["petroff10"], strict=False))
    for variant, of_variant in curves.items():
        look: dict[str, Any] = {"color": colours[variant], "linestyle": _LINES[variant]}
        by_epoch: dict[int, list[float]] = {}
        for curve in of_variant.values():
            points = {e.epoch: v for e in curve if (v := getattr(e, key)) is not None}
            axes.plot(*zip(*points.items(), strict=True), linewidth=0.8, alpha=0.5, **look)
            for epoch, value in points.items():
                by_epoch.setdefault(epoch, []).append(value)
        means = [statistics.fmean(values) for values in by_epoch.values()]
        axes.plot(list(by_epoch), means, marker="o", linewidth=2.5, label=_LABELS[variant], **look)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def write(curves: Mapping[str, Mapping[int, Curve]], out: Path) -> None:
    """The table's numbers and the picture."""
    document = {
        variant: {
            "AP": last(of_variant, "AP"),
            "AP50": last(of_variant, "AP50"),
            "train_loss": last(of_variant, "train_loss"),
            "curves": {str(s): [asdict(e) for e in curve] for s, curve in of_variant.items()},
        }
        for variant, of_variant in curves.items()
    }
    write_json(out / "bottlenecks.json", document)
    with atomic_write(out / "bottlenecks.png") as part:
        draw(curves).savefig(part, dpi=120, format="png")


def seeds_of(asked: int | list[int]) -> list[int]:
    """The seeds, where a number says how many."""
    return list(range(asked)) if isinstance(asked, int) else asked


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the description."""


@one_line_errors
def main() -> None:
    """Trains, prints, draws."""
    parser = ConfigParser(__doc__ or "")
    parser.parser.formatter_class = _Help
    parser.add_option("--seeds", type=int | list[int], default=1, help="a list, or how many from 0")
    parser.add_option(
        "--out", type=Path, default=Path("runs/studies/bottlenecks"), help="folder of the study"
    )
    given = first_argument_as_config(sys.argv[1:])
    arguments = [*given[:2], "--trainer.check_val_every_n_epoch=1", *given[2:]]
    settings = parser.parse(arguments)
    check(settings)
    options = settings.options
    curves: dict[str, dict[int, Curve]] = {}
    for seed in seeds_of(options.seeds):  # one of each variant first: a picture early
        for variant in VARIANTS:
            settings = variant_settings(parser, arguments, variant, seed)
            say(f"{variant}, seed {seed}")
            folder = options.out / variant / f"seed_{seed}"
            curves.setdefault(variant, {})[seed] = run(settings, folder)
            write(curves, options.out)
    print_table(curves)
    say(f"written to {options.out}")


if __name__ == "__main__":
    main()
