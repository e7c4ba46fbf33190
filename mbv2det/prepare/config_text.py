"""A configuration as text: a shipped one with other settings and the comments that explain them."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

_COMMENT_COLUMN = 30  # where the shipped files have their comments
_WIDTH = 100


class ConfigText:
    """The lines of a shipped configuration, to be changed one setting at a time.

    The shipped files are plain: a section starts at the left, a setting is one line of `key: value`
    below it, two spaces a level.

    Args:
        text: Text of a configuration.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"

    def replace_header(self, lines: Sequence[str]) -> None:
        """Replaces the comment at the top."""
        first = next(i for i, line in enumerate(self.lines) if not line.startswith("#"))
        self.lines[:first] = [part for line in lines for part in _comment(line)]

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Sets a dotted key; a new setting is added at the end of its section.

        Args:
            key: Name of the setting, such as `data.batch_size`.
            value: Plain value.
            comment: Why it has this value.
        """
        *sections, name = key.split(".")
        start, end = 0, len(self.lines)
        for depth, section in enumerate(sections):
            start, end = self._block(section, depth, start, end)
        depth = len(sections)
        new = _setting(name, value, comment, depth)
        found = self._find(name, depth, start, end)
        if found is None:
            self.lines[end:end] = new
        else:
            _, last = self._block(name, depth, start, end)
            self.lines[found:last] = new

    def drop(self, section: str, keep: Sequence[str]) -> None:
        """Drops the settings of a top section, but for some."""
        start, end = self._block(section, 0, 0, len(self.lines))
        kept = [line for line in self.lines[start:end] if _name(line) in keep]
        self.lines[start:end] = kept

    def value(self, key: str) -> Any:
        """Returns the value of a dotted key."""
        value: Any = yaml.safe_load(str(self))
        for part in key.split("."):
            value = value[part]
        return value

    def _find(self, name: str, depth: int, start: int, end: int) -> int | None:
        prefix = f"{'  ' * depth}{name}:"
        found = (i for i in range(start, end) if self.lines[i].startswith(prefix))
        return next(found, None)

    def _block(self, name: str, depth: int, start: int, end: int) -> tuple[int, int]:
        """Returns the first line below a key, and the line after its last one."""
        found = self._find(name, depth, start, end)
        assert found is not None, f"no {name} in the shipped configuration"
        last = found + 1
        while last < end and self.lines[last].startswith("  " * (depth + 1)):
            last += 1
        return found + 1, last


def _name(line: str) -> str:
    return line.strip().partition(":")[0]


def _setting(name: str, value: Any, comment: str, depth: int) -> list[str]:
    """Returns a setting with its comment beside it, or above it where there is no room."""
    indent = "  " * depth
    line = f"{indent}{name}: {dump(value)}"
    beside = f"{line.ljust(_COMMENT_COLUMN - 1)} # {comment}"
    if not comment:
        return [line]
    if len(beside) <= _WIDTH:
        return [beside]
    return [*_comment(comment, indent), line]


def _comment(text: str, indent: str = "") -> list[str]:
    """Returns text as lines of a comment; lines after the first are indented as it is."""
    own = text[: len(text) - len(text.lstrip())]
    width = _WIDTH - len(indent) - 2
    parts = textwrap.wrap(text, width, subsequent_indent=own) or [""]
    return [f"{indent}# {part}".rstrip() for part in parts]


def dump(value: Any) -> str:
    """Returns a plain value as YAML in one line."""
    text = yaml.safe_dump(
        _plain(value), default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False
    )
    return re.sub(r"\n\.\.\.$", "", text.rstrip("\n"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
