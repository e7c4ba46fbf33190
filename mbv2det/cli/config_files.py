"""Configuration files: the user's by path, the shipped ones by name."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from mbv2det.cli.shipped import shipped_folder
from mbv2det.errors import ConfigError
from mbv2det.run_files import BEST, CONFIG

_OPTION = "--config"
_SUFFIXES = (".yaml", ".yml")


def config_path(argument: str) -> Path:
    """Returns the configuration file that a command line names.

    If there is such a file, it is used; the folder of a run stands for the configuration that the
    run saved. Otherwise a bare name, with or without `.yaml`, is looked
    up among the configurations that come with mbv2det: `ssdlite_voc` works in any folder.

    Args:
        argument: Path of a file, or name of a shipped configuration.

    Raises:
        ConfigError: If there is neither a file nor a configuration of this name.
    """
    path = Path(argument)
    if path.is_file():
        return path
    if (path / CONFIG).is_file():
        return path / CONFIG
    shipped = shipped_configs()
    if path.name == argument and _bare_name(path) in shipped:
        return shipped[_bare_name(path)]
    near = difflib.get_close_matches(_bare_name(path), shipped, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    got = "a folder" if path.is_dir() else "none"
    raise ConfigError(
        f"{argument}: expected a configuration file, found {got}; "
        f"shipped configurations: {', '.join(shipped)}{hint}"
    )


def best_weights(argument: str) -> Path | None:
    """Returns the best weights of the run whose folder or saved configuration is named, if any.

    Args:
        argument: First argument of a command line.
    """
    path = Path(argument)
    folder = path if path.is_dir() else path.parent if path.name == CONFIG else None
    best = None if folder is None else folder / BEST
    return best if best is not None and best.is_file() else None


def shipped_configs() -> dict[str, Path]:
    """Returns the files of the shipped configurations by name, in alphabetical order."""
    folder = shipped_folder("configs", "configs")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def with_config_path(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the value of `--config`, if given, replaced by its file.

    Raises:
        ConfigError: If there is no such file.
    """
    replaced: list[str] = []
    for argument in arguments:
        if replaced and replaced[-1] == _OPTION:
            argument = str(config_path(argument))
        elif argument.startswith(f"{_OPTION}="):
            argument = f"{_OPTION}={config_path(argument.partition('=')[2])}"
        replaced.append(argument)
    return replaced


def _bare_name(path: Path) -> str:
    return path.stem if path.suffix in _SUFFIXES else path.name
