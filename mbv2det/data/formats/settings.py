"""Which settings belong to which data format; those of other formats are refused."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.formats import FORMATS
from mbv2det.errors import ConfigError

# Earlier versions wrote it to the config.yaml of every run, whatever the format.
_FORMER_DEFAULTS: Mapping[str, Any] = {"year": 2012}


def split_keys_of_others(name: str) -> list[str]:
    """Returns the settings of a split that a format does not have."""
    own = FORMATS[name].split_keys
    return [f.name for f in fields(SplitConfig) if f.name not in own]


def data_keys_of_others(name: str) -> list[str]:
    """Returns the settings of `DataConfig` that a format does not have and another has."""
    known = {key for format in FORMATS.values() for key in format.settings}
    return [f.name for f in fields(DataConfig) if f.name in known - FORMATS[name].settings]


def check_settings(data: DataConfig, **splits: SplitConfig) -> None:
    """Refuses settings that the configured format would ignore.

    Args:
        data: Settings of the data set.
        **splits: Settings of its splits, by name.

    Raises:
        ConfigError: If there is one; the message says which formats have it.
    """
    for key, given in _given(data, splits):
        name = key.rsplit(".", 1)[-1]
        having = [
            other
            for other, format in FORMATS.items()
            if name in (format.settings if key == f"data.{name}" else format.split_keys)
        ]
        raise ConfigError(
            f"{key}: expected none, since data.format is {data.format}, got {given}; this setting "
            f"belongs to {' and '.join(having)}"
        )


def _given(data: DataConfig, splits: Mapping[str, SplitConfig]) -> Iterator[tuple[str, Any]]:
    """Yields key and value of each setting that the format does not have."""
    defaults = {f.name: f.default for f in fields(DataConfig)}
    for name in data_keys_of_others(data.format):
        if getattr(data, name) != defaults[name]:
            yield f"data.{name}", getattr(data, name)
    for split_name, split in splits.items():
        for name in split_keys_of_others(data.format):
            value = getattr(split, name)
            if value is not None and value != _FORMER_DEFAULTS.get(name):
                yield f"data.{split_name}.{name}", value
