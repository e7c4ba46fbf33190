"""Choice between the settings stored with weights and the configured ones.

The stored settings win, unless the user overrides them on the command line or under
`override_weights`. The result is returned as values and differences; commands print the
differences.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mbv2det.errors import ConfigError

Dataclass = TypeVar("Dataclass")


@dataclass(frozen=True)
class Overrides:
    """Settings by which the user overrides those of weights.

    A name covers a setting or a whole section: `backbone` covers `backbone.padding`.

    Attributes:
        command_line: Names given on the command line.
        listed: Names listed under `override_weights`.
    """

    command_line: frozenset[str] = frozenset()
    listed: tuple[str, ...] = ()

    def source(self, key: str) -> str | None:
        """Returns the place where the user overrides a setting; None if there is none."""
        if _covers(self.command_line, key):
            return "the command line"
        return "override_weights" if _covers(self.listed, key) else None


def _covers(names: Iterable[str], key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


@dataclass(frozen=True)
class Difference:
    """A setting that has one value in the weights and another in the configuration.

    Attributes:
        key: Dotted name of the setting.
        stored: Value in the weights.
        configured: Value in the configuration.
        winner: Origin of the value that is used: "the weights", "the command line" or
            "override_weights".
    """

    key: str
    stored: Any
    configured: Any
    winner: str

    def __str__(self) -> str:
        verb = "win" if self.winner == "the weights" else "wins"
        return (
            f"{self.key}: {self.stored} in the weights, {self.configured} configured; "
            f"{self.winner} {verb}"
        )


@dataclass(frozen=True)
class Resolution:
    """Settings after resolution.

    Attributes:
        values: Value of every setting by dotted name.
        differences: Settings on which weights and configuration differ.
        overridden: Names of the settings that the user overrides, whether they differ or not.
    """

    values: Mapping[str, Any]
    differences: tuple[Difference, ...] = ()
    overridden: tuple[str, ...] = ()

    def joined(self, other: "Resolution") -> "Resolution":
        """Returns both resolutions as one."""
        return Resolution(
            {**self.values, **other.values},
            self.differences + other.differences,
            self.overridden + other.overridden,
        )

    def update(self, section: str, config: Dataclass, **changes: Any) -> Dataclass:
        """Returns a configuration with the values of its section.

        Args:
            section: Dotted name of the section.
            config: Configuration to change.
            changes: Other fields to change.
        """
        prefix = f"{section}."
        values = {
            key.removeprefix(prefix): value
            for key, value in self.values.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }
        return type(config)(**{**vars(config), **values, **changes})


def resolve(
    stored: Mapping[str, Any], configured: Mapping[str, Any], overrides: Overrides
) -> Resolution:
    """Chooses the value of every setting that is stored with weights.

    Args:
        stored: Values in the weights by dotted name.
        configured: Values in the configuration by dotted name, with the same names.
        overrides: Settings that the user overrides.
    """
    values, differences, overridden = {}, [], []
    for key, value in stored.items():
        source = overrides.source(key)
        values[key] = value if source is None else configured[key]
        if source is not None:
            overridden.append(key)
        if value != configured[key]:
            winner = source or "the weights"
            differences.append(Difference(key, value, configured[key], winner))
    return Resolution(values, tuple(differences), tuple(overridden))


def check_shapes(
    stored: Mapping[str, Any], configured: Mapping[str, Any], keys: Iterable[str], source: str
) -> None:
    """Checks that settings fit the tensors of weights.

    Args:
        stored: Values in the weights by dotted name.
        configured: Values in the configuration by dotted name.
        keys: Settings to compare.
        source: Name of the weights, for the message.

    Raises:
        ConfigError: If a value differs.
    """
    for key in keys:
        if stored[key] != configured[key]:
            raise ConfigError(
                f"{key}: expected {stored[key]}, as in {source}, got {configured[key]}"
            )


def in_section(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by dotted name: the names of a section get its prefix."""
    return {f"{section}.{key}": value for key, value in values.items()}
