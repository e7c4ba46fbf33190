"""`compare A B`: what changed from one model to another, and whether it is more than chance."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.cli.config_files import best_weights
from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.errors import ConfigError
from mbv2det.run_files import BEST, CONFIG

_DESCRIPTION = """
Measures two models on the same images and shows the differences of metrics and classes (B minus A)
with 95 % intervals, and the images that changed most: mbv2det compare A B --config CONFIG.

A and B are files of weights, exported files, or folders of runs, whose best weights are compared.
--config names the data; without it the configuration of the run that A belongs to is used. Settings
such as --data.root=DIR are those of eval.
"""
_CONFIG = "--config"


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option("--json", help="write the differences to this JSON file")
    parser.add_option("--html", help="write the report of both, side by side, to this HTML file")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ("-h", "--help"):
        parser.parse(given)
    files = [_weights(argument) for argument in given[:2] if not argument.startswith("--")]
    if len(files) < 2:
        raise ConfigError(f"compare: expected two files of weights first, got {len(files)}")
    rest = _with_config(files[0], given[2:])
    settings = [parser.parse([*rest, f"--weights={file}"]) for file in files]
    options = settings[0].options
    keep_freed_memory()
    from mbv2det.cli.comparing import compare  # --help needs no networks

    compare(
        settings,
        None if options.json is None else Path(options.json),
        None if options.html is None else Path(options.html),
    )


def _weights(argument: str) -> Path:
    """Returns the file of weights that an argument names.

    Raises:
        ConfigError: If there is none.
    """
    path = best_weights(argument) or Path(argument)
    if not path.is_file():
        got = f"a folder without {BEST}" if path.is_dir() else "none"
        raise ConfigError(
            f"{argument}: expected a file of weights or the folder of a run, got {got}"
        )
    return path


def _with_config(first: Path, rest: list[str]) -> list[str]:
    """Returns the arguments with the configuration in front.

    Raises:
        ConfigError: If none is given and the first weights belong to no run.
    """
    for position, argument in enumerate(rest):
        if argument == _CONFIG:
            return rest[position : position + 2] + rest[:position] + rest[position + 2 :]
        if argument.startswith(f"{_CONFIG}="):
            value = argument.partition("=")[2]
            return [_CONFIG, value, *rest[:position], *rest[position + 1 :]]
    saved = first.parent / CONFIG
    if not saved.is_file():
        raise ConfigError(
            f"--config: expected the configuration that names the data, got none, and {first} is "
            "not in the folder of a run"
        )
    return [_CONFIG, str(saved), *rest]
