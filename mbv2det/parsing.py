"""jsonargparse, with errors of one line that name the nearest key."""

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace

from mbv2det.errors import ConfigError

Parsed = TypeVar("Parsed")


class OneLineParser(ArgumentParser):
    """A parser that ends in one line and exit code 2 on anything it does not understand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line to standard error and exits."""
        if not self.exit_on_error:  # a parser that the library made for a nested value
            super().error(message, ex)
        sys.stderr.write(f"{self.prog}: error: {self.explain(message)}\n")
        sys.exit(2)

    def explain(self, message: str) -> str:
        """The library's message on one line, with the nearest known key where one is unknown."""
        line = re.sub(r"\s+", " ", message).strip()
        line = line.replace("<class '", "").replace("'>", "").replace("typing.", "")
        for pattern in (r"unrecognized arguments: --([\w.]+)", r"[Kk]ey \"?'?([\w.]+)'?\"? is not"):
            unknown = re.search(pattern, line)
            if unknown:
                near = difflib.get_close_matches(unknown[1], self.known_keys(), n=1, cutoff=0.6)
                hint = f"; did you mean {near[0]!r}?" if near else "; see --help for every key"
                return line + hint
        return line

    def known_keys(self) -> list[str]:
        """Dotted names of every setting."""
        return [action.dest for action in self._actions if action.dest != "help"]


def parse_dataclass(kind: type[Parsed], values: dict[str, Any]) -> Parsed:
    """A dataclass from plain JSON values, checked against its types.

    Raises:
        ConfigError: For an unknown key or a value of the wrong type.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    try:
        return parser.instantiate(parser.parse_object({"it": values})).it
    except Exception as error:
        line = re.sub(r"\s+", " ", str(error))
        raise ConfigError(f"{kind.__name__}: {line}") from None


def as_dict(parser: ArgumentParser, namespace: Namespace) -> dict[str, Any]:
    """Every setting as plain values, for comparing and printing."""
    return parser.dump(namespace, format="dict", skip_none=False)


def first_argument_as_config(arguments: Sequence[str]) -> list[str]:
    """Lets the configuration file be given as the first argument, without an option."""
    if arguments and not arguments[0].startswith("-"):
        return ["--config", *arguments]
    return list(arguments)
