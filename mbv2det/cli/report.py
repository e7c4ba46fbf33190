"""`report CONFIG --weights FILE... --out FILE`: how good models are, and where they fail."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.cli.config_files import best_weights
from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.errors import ConfigError

_DESCRIPTION = """
Measures weights on the validation split of a configuration, as eval does, and writes one HTML file
that shows how good they are, where they fail and why. The file has everything in it: it opens from
a disk or an e-mail, without a network.

--weights takes several files, which are shown side by side. With --seeds they are runs of one
configuration with other seeds: their mean is shown too, with an interval over the runs.

CONFIG may be the folder of a run: without --weights its best weights are measured.
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option("--out", default="report.html", help="HTML file to write")
    parser.add_option(
        "--seeds", action="store_true", help="the weights are of runs that differ by their seeds"
    )
    rest, files = split_weights(list(sys.argv[1:] if arguments is None else arguments))
    best = best_weights(rest[0]) if rest else None
    files = files or ([str(best)] if best is not None else [])
    settings = [parser.parse([*rest, f"--weights={file}"]) for file in files]
    if not settings:
        parser.parse(rest)  # says first what else is wrong, and shows --help
        raise ConfigError("--weights: expected the files of the weights to show, got none")
    if settings[0].options.seeds and len(files) < 2:
        raise ConfigError(f"--seeds: expected the weights of at least two runs, got {files[0]}")
    keep_freed_memory()
    from mbv2det.cli.reporting import report_weights  # --help needs no networks

    report_weights(Path(settings[0].options.out), settings, seeds=settings[0].options.seeds)


def split_weights(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments without `--weights`, and its files: `--weights A B`, `--weights=A`."""
    rest: list[str] = []
    files: list[str] = []
    reading = False
    for argument in arguments:
        if argument.startswith("--"):
            reading = argument == "--weights"
        if argument.startswith("--weights="):
            files.append(argument.partition("=")[2])
        elif reading and argument != "--weights":
            files.append(argument)
        elif not reading:
            rest.append(argument)
    return rest, files
