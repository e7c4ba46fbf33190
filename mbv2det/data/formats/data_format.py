"""What a data format is: its settings, and the function that reads a split with them."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.annotations import Annotations
from mbv2det.errors import ConfigError

SplitSettings = TypeVar("SplitSettings")


@dataclass(frozen=True)
class SplitRequest(Generic[SplitSettings]):
    """A split to read.

    Attributes:
        data: Settings of the data set.
        split: Settings of the split, in the class of its format.
        key: Configuration key of the split, such as data.train, for messages.
        boxes: Whether to read boxes.
        masks: Whether to read masks.
    """

    data: DataConfig
    split: SplitSettings
    key: str
    boxes: bool
    masks: bool

    @property
    def root(self) -> Path:
        """Folder of the data set."""
        return Path(self.data.root)


@dataclass(frozen=True)
class DataFormat(Generic[SplitSettings]):
    """A data format.

    Attributes:
        split: Class of the settings of a split: a field without a default has to be set.
        read: Reads a split.
        settings: Settings of `DataConfig` that only some formats have, and this one has.
        has_boxes: Whether the format can have boxes.
        draws_masks: Whether its masks are drawn from the outlines of objects.
    """

    split: type[SplitSettings]
    read: Callable[[SplitRequest[SplitSettings]], Annotations]
    settings: frozenset[str] = frozenset()
    has_boxes: bool = True
    draws_masks: bool = True

    @property
    def split_keys(self) -> frozenset[str]:
        """Names of the settings of a split."""
        return frozenset(f.name for f in fields(self.split))  # type: ignore[arg-type]

    def typed(self, split: SplitConfig, key: str) -> SplitSettings:
        """Returns the settings of a split in the class of this format.

        Args:
            split: Settings as they were parsed, those of other formats unset.
            key: Configuration key of the split.

        Raises:
            ConfigError: If a setting is missing.
        """
        declared = fields(self.split)  # type: ignore[arg-type]
        missing = [
            f"{key}.{f.name}"
            for f in declared
            if f.default is MISSING and getattr(split, f.name) is None
        ]
        if missing:
            raise ConfigError(
                f"{key}: expected {' and '.join(missing)}, relative to data.root, "
                f"which {self.split.__name__.removesuffix('Split')} data needs; found none"
            )
        given = {f.name: getattr(split, f.name) for f in declared}
        return self.split(**{name: value for name, value in given.items() if value is not None})


def single(value: Any, key: str) -> Any:
    """Returns a setting that may be a list in other formats.

    Raises:
        ConfigError: If it is a list.
    """
    if isinstance(value, tuple):
        raise ConfigError(f"{key}: expected one name, got a list of {len(value)}")
    return value
