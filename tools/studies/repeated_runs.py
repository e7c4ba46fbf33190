"""What studies share that train the same network several times: seeds, results, spreads."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from mbv2det.atomic_write import write_json
from mbv2det.cli.settings import Settings, SettingsParser
from mbv2det.cli.train import train
from mbv2det.errors import ConfigError


def add_seeds_option(parser: SettingsParser) -> None:
    """Adds the option `--seeds`, which `seeds_of` reads."""
    parser.add_option(
        "--seeds",
        type=int | list[int],
        default=1,
        help="list of seeds, or a number of them, counted from 0",
    )


def seeds_of(option: int | list[int]) -> list[int]:
    """Returns the seeds of the option: those of a list, or 0, 1, ... for a number of seeds."""
    return list(range(option)) if isinstance(option, int) else option


def result_of(settings: Settings, folder: Path, read: Callable[[Path], Any]) -> Any:
    """Trains once and returns the result, or that of an earlier call.

    Args:
        settings: Settings of the run.
        folder: Output folder of this run alone.
        read: Returns the result from the folder of a run that has finished; made of what JSON has.

    Raises:
        ConfigError: If the folder holds a run with other settings, or of an earlier version.
    """
    file, requested = folder / "result.json", settings.yaml()
    if file.is_file():
        stored = json.loads(file.read_text())
        if stored["settings"] != requested:
            raise ConfigError(
                f"--out: {folder} holds a run with other settings; choose another folder"
            )
        if "result" not in stored:
            raise ConfigError(
                f"--out: {folder} holds a run of an earlier version; choose another folder"
            )
        return stored["result"]
    trainer = settings.trainer | {"default_root_dir": str(folder)}
    result = read(train(replace(settings, trainer=trainer, options=Namespace(resume=None))))
    write_json(file, {"settings": requested, "result": result})
    return result


def mean_and_deviation(values: Sequence[float]) -> str:
    """Returns the mean and the standard deviation as text; a dash for no value."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
