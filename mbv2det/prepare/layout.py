"""How a data set lies in its folder: what a configuration has to say about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbv2det.config import DataConfig, SplitConfig


@dataclass(frozen=True)
class Layout:
    """A data set in one of the formats.

    Attributes:
        root: Folder of the data set.
        format: Its format.
        splits: Settings of the splits that it has, by name: train, val or test. A data set without
            splits has only train.
        boxes: Whether it has boxes.
        masks: Whether it has masks.
        num_files: Number of images that the annotation names, as far as it was looked at.
        reasons: Lines that say why.
        data: Settings of `DataConfig` that the format needs.
        names: The annotated images of splits that have others too, which a reader would refuse.
    """

    root: Path
    format: str
    splits: Mapping[str, SplitConfig]
    boxes: bool
    masks: bool
    num_files: int
    reasons: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def config(self, **changes: Any) -> DataConfig:
        """Returns the settings of the data, with those of some splits or others changed."""
        named = {name: split for name, split in self.splits.items() if name != "test"}
        settings = {"root": str(self.root), "format": self.format, **named, **self.data, **changes}
        return DataConfig(**settings)
