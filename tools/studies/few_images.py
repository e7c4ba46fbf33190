r"""Trains with few and with more images, from several starts, and compares the results.

    python tools/studies/few_images.py ssdlite_voc --data.root=DIR --data.val.split=test \
        --starts='{COCO: weights=FILE, ImageNet: backbone.weights=FILE}' \
        --counts=[10,50,150] --seeds=3 --steps=150

CONFIG gives data, network and recipe. For each seed the training images are shuffled, and the first
10, 50 and 150 of them are three training sets; the classes are those of all images. A run takes as
many epochs as make about --steps steps, and is measured after the last one. Each start is a
setting that names weights.

Prints the score of each start and count (AP, mIoU, or the mean of both; mean and standard deviation
over the seeds). After every run it writes few_images.json and few_images.png into --out. Runs that
have finished there are not trained again.
"""

import csv
import json
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure
from repeated_runs import add_seeds_option, mean_and_deviation, result_of, seeds_of
from rich.console import Console
from rich.table import Table

from mbv2det.atomic_write import atomic_write, write_json
from mbv2det.build import label_maps_of
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.cli.splits import read_splits
from mbv2det.console import log, one_line_errors
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap


@dataclass(frozen=True)
class Training:
    """One training of the study.

    Attributes:
        start: Name of the weights that it started from.
        count: Number of its images.
        seed: Seed of the choice of images, and of the training.
    """

    start: str
    count: int
    seed: int


@dataclass(frozen=True)
class Pool:
    """What all trainings choose from.

    Attributes:
        names: Names of the training images, without suffix.
        classes: Names of the classes, without background.
        batch_size: Images a step.
    """

    names: Sequence[str]
    classes: Sequence[str]
    batch_size: int

    @classmethod
    def read(cls, settings: Settings) -> "Pool":
        """Reads the training split of a configuration."""
        training, _ = read_splits(settings.config)
        names = [Path(file).stem for file in training.files]
        maps = label_maps_of(training, settings.config.tasks)
        return cls(names, _class_names(next(iter(maps.values()))), settings.config.data.batch_size)

    def choose(self, training: Training) -> list[str]:
        """Returns the images of one training; fewer images of a seed are part of more."""
        shuffled = [*self.names]
        random.Random(training.seed).shuffle(shuffled)
        return shuffled[: training.count]

    def epochs(self, training: Training, steps: int) -> int:
        """Returns the number of epochs that make about `steps` steps."""
        return max(1, round(steps / max(1, training.count // self.batch_size)))


def _class_names(label_map: LabelMap) -> list[str]:
    return [name for name in label_map.names if name != "background"]


def check(counts: Sequence[int], starts: Mapping[str, str], steps: int, pool: Pool) -> None:
    """Checks the options of the study.

    Raises:
        ConfigError: If there are not as many images, no steps, or a start is no setting.
    """
    if not starts:
        raise ConfigError(
            "--starts: expected settings of weights by name, such as "
            "'{COCO: weights=FILE, ImageNet: backbone.weights=FILE}', got none"
        )
    if not counts or min(counts) < 1 or max(counts) > len(pool.names):
        raise ConfigError(
            f"--counts: expected numbers of images from 1 to {len(pool.names)}, the size of the "
            f"training split, got {list(counts)}"
        )
    if steps < 1:
        raise ConfigError(f"--steps: expected at least 1, got {steps}")
    for name, setting in starts.items():
        if "=" not in setting:
            raise ConfigError(f"--starts: {name}: expected SETTING=FILE, got {setting}")


def last_score(run: Path) -> float:
    """Returns the score of the last validation of a run."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["val/score"]) for row in csv.DictReader(file) if row["val/score"]][-1]


def by_start(scores: Mapping[Training, float]) -> dict[str, dict[int, list[float]]]:
    """Returns the scores of all seeds by start and number of images."""
    result: dict[str, dict[int, list[float]]] = {}
    for training, score in scores.items():
        result.setdefault(training.start, {}).setdefault(training.count, []).append(score)
    return result


def print_table(scores: Mapping[Training, float]) -> None:
    """Prints a row for each number of images, and a column for each start."""
    starts = by_start(scores)
    table = Table(title="Score after the last epoch: mean ± standard deviation over the seeds")
    for heading in ("images", *starts):
        table.add_column(heading, justify="right")
    for count in sorted({training.count for training in scores}):
        table.add_row(
            str(count), *(mean_and_deviation(of_count[count]) for of_count in starts.values())
        )
    Console().print(table)


def draw(scores: Mapping[Training, float]) -> Figure:
    """Returns a figure of the score over the number of images: points are runs, lines means."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for number, (start, of_count) in enumerate(by_start(scores).items()):
        colour = f"C{number}"
        for count, values in of_count.items():
            axes.plot([count] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
        means = {count: statistics.fmean(values) for count, values in sorted(of_count.items())}
        axes.plot(list(means), list(means.values()), color=colour, label=f"from {start}")
    counts = sorted({training.count for training in scores})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("score on the validation images")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def write(scores: Mapping[Training, float], out: Path) -> None:
    """Writes all scores, and the figure."""
    records = [asdict(training) | {"score": score} for training, score in scores.items()]
    write_json(out / "few_images.json", records)
    with atomic_write(out / "few_images.png") as part:
        draw(scores).savefig(part, dpi=120, format="png")


@one_line_errors
def main() -> None:
    """Runs the study."""
    parser = SettingsParser(__doc__ or "")
    parser.add_option(
        "--starts", type=dict[str, str], default={}, help="setting of the weights by name"
    )
    parser.add_option("--counts", type=list[int], default=[10, 50, 150], help="numbers of images")
    add_seeds_option(parser)
    parser.add_option("--steps", type=int, default=150, help="steps of a run, roughly")
    parser.add_option(
        "--out", type=Path, default=Path("runs/studies/few_images"), help="output folder"
    )
    arguments = sys.argv[1:]
    settings = parser.parse(arguments)
    options, pool = settings.options, Pool.read(settings)
    check(options.counts, options.starts, options.steps, pool)
    scores: dict[Training, float] = {}
    for seed, count, start in product(seeds_of(options.seeds), options.counts, options.starts):
        training = Training(start, count, seed)
        log(f"from {start}, {count} images, seed {seed}")
        folder = options.out / f"{start}_{count}_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        names = folder / "images.txt"
        names.write_text("\n".join(pool.choose(training)) + "\n")
        epochs = pool.epochs(training, options.steps)
        settings = parser.parse(
            [
                *arguments, f"--{options.starts[start]}", f"--data.train.list={names}",
                f"--data.classes={json.dumps(pool.classes)}", f"--trainer.max_epochs={epochs}",
                f"--trainer.check_val_every_n_epoch={epochs}", f"--seed={seed}",
            ]
        )  # fmt: skip
        scores[training] = result_of(settings, folder, last_score)
        write(scores, options.out)
    print_table(scores)
    log(f"written to {options.out}")


if __name__ == "__main__":
    main()
