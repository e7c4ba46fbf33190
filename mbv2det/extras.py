"""Packages of extras: imported where they are needed, and named in one line if they are missing."""

from importlib import import_module
from typing import Any

from mbv2det.errors import ConfigError


def require(package: str, extra: str, purpose: str) -> Any:
    """Imports an optional package.

    Args:
        package: Name of the module.
        extra: Extra of this project that brings the package.
        purpose: What needs the package, for the message.

    Raises:
        ConfigError: If the package is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        missing = error.name or package
        raise ConfigError(
            f"{purpose}: expected the package {missing}, found none; "
            f"install it with: pip install 'mbv2det[{extra}]'"
        ) from None
