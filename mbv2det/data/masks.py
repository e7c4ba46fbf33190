"""The masks of one split: a label for every pixel, in any form of storage.

`IndexMasks` are read from image files, `InstanceMasks` are drawn from the outlines of instances.
Both return masks of labels 0..L-1 and `IGNORE_INDEX`.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int16, Int64, UInt8

from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.structures import IGNORE_INDEX


@runtime_checkable
class Masks(Protocol):
    """The masks of the images of one split."""

    @property
    def label_map(self) -> LabelMap:
        """Names of the labels and their values in the files."""
        ...

    @property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images without a mask."""
        ...

    def at(self, indices: Int64[np.ndarray, " M"]) -> "Masks":
        """Returns the masks of the images at some positions, in their order."""
        ...

    def source(self, index: int) -> str:
        """Returns the file that the mask of an image is read from, for messages."""
        ...

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Decodes the mask of an annotated image, in the frame of the original file.

        Raises:
            DataError: If its file is damaged or has values without a label.
        """
        ...

    def with_label_map(self, label_map: LabelMap) -> "Masks":
        """Returns the masks in the labels of another map, matched by name.

        Labels that the other map lacks become background, or are ignored where it has no
        background.
        """
        ...


def default_label(label_map: LabelMap) -> int:
    """Returns the label of pixels that belong to no class: background, or `IGNORE_INDEX`."""
    return label_map.label_of_name.get(BACKGROUND, IGNORE_INDEX)


def match_names(names: Sequence[str], label_map: LabelMap) -> Int16[np.ndarray, " n"]:
    """Returns the label of each name, or the default label where the map lacks the name."""
    default = default_label(label_map)
    matches = [label_map.find(name) for name in names]
    return np.array([default if label is None else label for label in matches], np.int16)
