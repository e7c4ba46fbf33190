"""Settings in JSON files that transformers writes, and checks of their values."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mbv2det.errors import ConfigError

# Valid values of each setting: a description, and a function that checks a value.
Allowed = Mapping[str, tuple[str, Callable[[Any], bool]]]


def read_json(path: Path) -> dict[str, Any]:
    """Reads settings by name.

    Raises:
        ConfigError: If the file is not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # invalid JSON or invalid encoding
        raise ConfigError(f"{path}: expected JSON, got other text ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected settings by name, got {type(content).__name__}")
    return content


def check_settings(
    path: Path, settings: Mapping[str, Any], fixed: Mapping[str, Any], allowed: Allowed
) -> None:
    """Checks the settings in a file; missing settings are not checked.

    Args:
        path: Path of the file, for messages.
        settings: Settings by name.
        fixed: Settings with a single valid value, by name.
        allowed: Valid values of other settings, by name.

    Raises:
        ConfigError: If a setting has a value that is not allowed.
    """
    for key, expected in fixed.items():
        got = settings.get(key, expected)
        if got != expected:
            raise ConfigError(
                f"{path}: {key}: expected {json.dumps(expected)}, got {json.dumps(got)}"
            )
    for key, (description, is_allowed) in allowed.items():
        if key in settings and not is_allowed(settings[key]):
            raise ConfigError(
                f"{path}: {key}: expected {description}, got {json.dumps(settings[key])}"
            )


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: object, minimum: int) -> bool:
    """Returns whether a value is a whole number of at least `minimum`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum
