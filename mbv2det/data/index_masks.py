"""Masks stored as image files, one for each image, whose pixels stand for label values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16, Int64, UInt8

from mbv2det.data.mask_reading import MaskReading
from mbv2det.data.masks import match_names
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap
from mbv2det.structures import IGNORE_INDEX

_NO_LABEL = -1  # entry of `IndexMasks.table` for a value that the data set does not define
_INDEX = MaskReading()


@dataclass(frozen=True)
class IndexMasks:
    """Masks in image files, such as VOC's palette PNG files.

    Attributes:
        label_map: Names of the labels and their values in the files.
        files: Path of each image's mask; empty for an image without a mask.
        table: Label of each value 0..255, or `IGNORE_INDEX`, or -1 for a value without a label.
        reading: How the pixels of the files become values.
    """

    label_map: LabelMap
    files: np.ndarray
    table: Int16[np.ndarray, "256"]
    reading: MaskReading = _INDEX

    @classmethod
    def of(
        cls,
        label_map: LabelMap,
        files: Sequence[str],
        ignore_value: int | None = IGNORE_INDEX,
        reading: MaskReading = _INDEX,
    ) -> "IndexMasks":
        """Returns masks whose values are the ids of a label map.

        Args:
            label_map: Names of the labels and their values in the files, 0..255.
            files: Path of each image's mask; empty for an image without a mask.
            ignore_value: The data set's value of ignored pixels; None if it has none.
            reading: How the pixels of the files become values.

        Raises:
            DataError: If there are no labels or more than a mask can hold, if a label has the
                ignored value, or if that value is outside 0..255.
        """
        in_range = all(0 <= value <= 255 for value in label_map.ids)
        if not (0 < len(label_map) <= IGNORE_INDEX and in_range):
            raise DataError(
                f"masks: expected 1 to {IGNORE_INDEX} labels with values 0..255, got "
                f"{len(label_map)} with values up to {max(label_map.ids, default=None)}"
            )
        if ignore_value is not None and not 0 <= ignore_value <= 255:
            raise DataError(
                f"data.ignore_index: expected a value in 0..255, or null for none, got "
                f"{ignore_value}"
            )
        if ignore_value in label_map.ids:
            name = label_map.names[label_map.label_of_id[ignore_value]]
            raise DataError(
                f"data.ignore_index: expected a value that is no label, got {ignore_value}, "
                f"the value of {name!r}"
            )
        table = np.full(256, _NO_LABEL, np.int16)
        table[list(label_map.ids)] = np.arange(len(label_map))
        if ignore_value is not None:
            table[ignore_value] = IGNORE_INDEX
        return cls(label_map, np.array(files, dtype=np.str_), table, reading)

    @cached_property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images without a mask."""
        return self.files != ""

    def source(self, index: int) -> str:
        """Returns the path of an image's mask."""
        return str(self.files[index])

    def at(self, indices: Int64[np.ndarray, " M"]) -> "IndexMasks":
        """Returns the masks of the images at some positions, in their order."""
        return replace(self, files=self.files[indices])

    def of_images(self, rows: Sequence[int | None]) -> "IndexMasks":
        """Returns the masks of some images in the given order; None stands for no mask."""
        return replace(
            self, files=np.array(["" if row is None else self.files[row] for row in rows])
        )

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Decodes the mask of an annotated image, in the frame of the original file.

        Raises:
            DataError: If its file is not an index image or has values without a label.
        """
        path = Path(self.source(index))
        values = self.reading.read(path)
        mask = self.table[values] if values.min() >= 0 and values.max() < 256 else None
        if mask is None or mask.min() < 0:
            known = np.flatnonzero(self.table >= 0)
            unknown = np.setdiff1d(values, known).tolist()
            raise DataError(
                f"{path}: expected only the values {_ranges(known.tolist())} "
                f"of {len(self.label_map)} labels and ignored pixels, also got {_ranges(unknown)}"
            )
        return mask.astype(np.uint8)

    def with_label_map(self, label_map: LabelMap) -> "IndexMasks":
        """Returns the masks in the labels of another map, matched by name; see `Masks`."""
        new_labels = np.arange(256, dtype=np.int16)
        new_labels[: len(self.label_map)] = match_names(self.label_map.names, label_map)
        known = self.table != _NO_LABEL
        table = np.where(known, new_labels[self.table], _NO_LABEL)
        return replace(self, label_map=label_map, table=table)


def _ranges(values: list[int], shown: int = 8) -> str:
    """Formats ascending numbers as ranges, such as `0..20, 255`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
    return ", ".join(texts[:shown]) + (", ..." if len(texts) > shown else "")
