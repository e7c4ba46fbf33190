"""Output of commands: lines on standard error, and errors as one line with an exit code."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from rich.console import Console
from rich.progress import track as rich_track
from rich.table import Column, Table

from mbv2det.errors import (
    ConfigError,
    DataError,
    NonFiniteLossError,
    ProcessLostError,
    TrainingStoppedError,
)

# Environment variables in which launchers store the rank of a process.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")

console = Console(stderr=True, soft_wrap=True)


def log(message: str) -> None:
    """Prints a line, in the first process of a run only."""
    if not any(int(os.environ.get(name, "0")) for name in _RANKS):
        console.print(message, highlight=False, markup=False)


@contextmanager
def errors_alone(logger: str | None) -> Iterator[None]:
    """Makes a library log nothing below errors.

    Args:
        logger: Name of its logger; None for the root, which libraries without one of their own use.
    """
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(level)


def track(
    items: Iterable[Item], title: str, total: int | None = None, *, quiet: bool = False
) -> Iterable[Item]:
    """Yields the items below a progress bar, which only a terminal shows and which goes at the end.

    Args:
        items: What is worked on.
        title: Text beside the bar.
        total: Number of items, where they have no length.
        quiet: Whether to show no bar, as there are few items.
    """
    hidden = quiet or not console.is_terminal
    return rich_track(items, title, total, console=console, transient=True, disable=hidden)


def one_line_errors(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wraps a command so that an error which the user can fix is printed as one line.

    The exit code is 2 for wrong input, 1 for a failed training 130 for an interrupt, and 128
    and the number of the signal for a training that a signal ended.
    """

    @wraps(command)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ConfigError, DataError) as error:
            _print_rows(error)
            _end(error, 2)
        except (NonFiniteLossError, ProcessLostError) as error:
            _end(error, 1)
        except TrainingStoppedError as error:
            sys.exit(128 + error.number)
        except KeyboardInterrupt:
            sys.exit(130)

    return guarded


def _print_rows(error: Exception) -> None:
    """Prints the tensors that an error about weights lists, as a table."""
    rows = getattr(error, "rows", ())
    if rows:
        # Names are shown in full, on several lines where the terminal is narrow.
        headings = ("tensor", "problem", "expected", "got")
        table = Table(*(Column(heading, overflow="fold") for heading in headings))
        for row in rows:
            table.add_row(row.name, row.problem, row.expected, row.got)
        console.print(table)


def _end(error: Exception, code: int) -> None:
    # An error from a worker of a data loader carries its traceback; its last line is the message.
    lines = str(error).strip().splitlines()
    message = lines[-1] if lines[0].startswith("Caught ") else " ".join(lines)
    sys.stderr.write(f"error: {message.removeprefix(f'mbv2det.errors.{type(error).__name__}: ')}\n")
    sys.exit(code)
