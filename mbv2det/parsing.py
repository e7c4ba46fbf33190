"""Parsing with jsonargparse, with one-line errors that name the nearest key."""

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from mbv2det.errors import ConfigError

Parsed = TypeVar("Parsed")


class OneLineParser(ArgumentParser):
    """A parser that exits with one line and code 2 if it cannot parse its input.

    Attributes:
        file: The configuration file that is read, for messages.
        given: Keys of the settings on the command line.
        edit: Function that changes the content of the file before it is parsed; None for none.
    """

    file: str = ""
    given: frozenset[str] = frozenset()
    edit: Callable[[str], str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parses a file."""
        if self.edit is None:
            return super().parse_path(cfg_path, *args, **kwargs)
        return self.parse_string(self.edit(Path(str(cfg_path)).read_text("utf-8")), *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints a message as one line to standard error and exits."""
        if not self.exit_on_error:  # a parser that jsonargparse made for a nested value
            super().error(message, ex)
        sys.stderr.write(f"{self.prog}: error: {self.explain(message)}\n")
        sys.exit(2)

    def explain(self, message: str) -> str:
        """Returns a message of jsonargparse as one line: file, key and the nearest known key."""
        line = re.sub(r"\s+", " ", message).strip()
        missing = re.search(r"File does not exist: '(.*)'", line)
        if missing:
            return f"{missing[1]}: expected a configuration file, found none"
        option = re.fullmatch(r"argument (--[\w.-]+): expected one argument", line)
        if option:  # argparse's, about the command line
            return f"{option[1]}: expected a value, got none"
        key, fault = _fault(line)
        if key is None:
            return f"{self.file}: {line}" if self.file else line
        where = self._where(key)
        if fault is not None:
            return f"{where}{key}: {fault}"
        if key.endswith((".yaml", ".yml")):
            return f"{key}: expected CONFIG as the first argument, before the options"
        near = difflib.get_close_matches(key, self.known_keys(), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else "--help lists every key"
        return f"{where}unknown key {key!r}; {hint}"

    def _where(self, key: str) -> str:
        """Returns the beginning of a message about a setting: the file, unless it was given."""
        is_given = bool({key, key.replace("_", "-")} & self.given)
        return f"{self.file}: " if self.file and not is_given else ""

    def refuse_nulls(self, namespace: Namespace) -> None:
        """Refuses null for a setting that needs a value, which jsonargparse lets pass.

        Raises:
            ConfigError: For such a setting.
        """
        for action in self._actions:
            allowed = getattr(action, "_typehint", None)
            if allowed is None or action.default is None or action.dest not in namespace:
                continue
            if namespace[action.dest] is None and type(None) not in get_args(allowed):
                word = " or ".join(_word(_simple(str(part))) for part in _alternatives(allowed))
                raise ConfigError(
                    f"{self._where(action.dest)}{action.dest}: expected {word}, got null"
                )

    def known_keys(self) -> list[str]:
        """Returns the dotted names of all settings."""
        keys = []
        for action in self._actions:
            keys.append(action.dest)
            for option_type in get_args(getattr(action, "_typehint", None)):
                if is_dataclass(option_type):
                    keys += [f"{action.dest}.{field.name}" for field in fields(option_type)]
        return keys


# jsonargparse's messages about one key. The message about a nested value is inside the message
# about the whole value, so the last match is the specific one.
_UNKNOWN = (
    r"unrecognized arguments: (--)?(?P<key>[\w./-]+)",
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
    r"Parser key \"(?P<group>[\w.]+)\".*Option '(?P<key>[\w.]+)' is not accepted",
    r"[Kk]ey '(?P<key>[\w.]+)' is not expected",
    r"does not accept option '(?P<key>[\w.]+)'",
)
_WRONG_VALUE = (
    r"Parser key \"(?P<group>[\w.]+)\".*Parser key \"(?P<key>[\w.]+)\": (?P<fault>.*?) - Expected",
    r"Parser key \"(?P<key>[\w.]+)\": (?P<fault>.*)",
)


def _fault(line: str) -> tuple[str | None, str | None]:
    """Returns the dotted key in a message, and the fault of its value if there is one."""
    for pattern in (*_UNKNOWN, *_WRONG_VALUE):
        match = re.search(pattern, line)
        if match:
            parts = match.groupdict()
            key = ".".join(p for p in (parts.get("group"), parts["key"]) if p)
            return key, _plain(parts["fault"]) if "fault" in parts else None
    return None, None


_UNION = re.compile(r"Subtypes: \[(?P<types>.*?)\] Errors: .*Given value:(?P<value>.*)")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "NoneType": "null",
    "tuple[str, ...]": "a list of text",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[int, int]": "[whole number, whole number]",
    "tuple[float, float]": "[number, number]",
}


def _plain_union(types: str, value: str) -> str:
    """Returns the fault of a value for which several types are allowed, and how to write it."""
    value = _value(value)
    names = [name.strip() for name in re.split(r",(?![^\[]*\])", types)]
    words = dict.fromkeys(_word(name) for name in names)
    hint = ""
    if "tuple[str, ...]" in names and value.startswith("["):
        hint = '; put numbers and words such as yes, no, on, off in quotes: ["yes", "no"]'
    elif (
        value not in _NO_VALUE
        and any(n.startswith("tuple") for n in names)
        and re.fullmatch(r"[\w .-]+", value)
    ):
        hint = f"; a list of one is written [{value}]"
        hint = hint if any(name.endswith("...]") for name in names) else ""
    return f"expected {' or '.join(words)}, got {value}{hint}"


def _alternatives(allowed: Any) -> tuple[Any, ...]:
    """Returns the types of a union; a type that is none stands for itself."""
    return get_args(allowed) if get_origin(allowed) in (Union, UnionType) else (allowed,)


def _word(name: str) -> str:
    if name.startswith("one of "):
        return " or ".join(re.findall(r"'([^']*)'", name)) or name
    return _WORDS.get(name, name.strip("'").split("[")[0].rsplit(".", 1)[-1])


def _plain(fault: str) -> str:
    """Returns a fault of jsonargparse as `expected ..., got ...`."""
    fault = _simple(fault)
    union = _UNION.search(fault)
    return _plain_union(union["types"], union["value"]) if union else fault


def _simple(fault: str) -> str:
    """Returns a fault without the names that only Python has for types."""
    fault = re.sub(r"<class '([\w.]+)'>", r"\1", fault).replace("typing.", "")
    fault = re.sub(r"Literal\[(.*?)\]", r"one of \1", fault)
    expected = re.fullmatch(r"Expected a (.*?)\. Got value: (.*)", fault)
    return f"expected {_word(expected[1])}, got {_value(expected[2])}" if expected else fault


_NO_VALUE = ("null", "an empty value")


def _value(text: str) -> str:
    """Returns a value as a configuration file has it."""
    null, empty = _NO_VALUE
    return {"None": null, "": empty}.get(text.strip(), text.strip())


def parse_dataclass(parsed_type: type[Parsed], values: dict[str, Any]) -> Parsed:
    """Builds a dataclass from plain JSON values, checked against its types.

    Raises:
        ConfigError: For an unknown key or a value of the wrong type.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--settings", type=parsed_type)
    try:
        return parser.instantiate(parser.parse_object({"settings": values})).settings
    except Exception as error:
        line = re.sub(r"\s+", " ", str(error))
        raise ConfigError(f"{parsed_type.__name__}: {line}") from None


def first_argument_as_config(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, with `--config` inserted before a first one that is not an option."""
    if arguments and not arguments[0].startswith("-"):
        return ["--config", *arguments]
    return list(arguments)
