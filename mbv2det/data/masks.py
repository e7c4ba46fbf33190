"""Where the label of every pixel comes from: index images, or the outlines of instances.

Whatever the source, a mask that leaves this file holds labels 0..L-1 and `IGNORE_INDEX`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Bool, Int16, Int64, UInt8
from PIL import Image, UnidentifiedImageError

from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND, LabelMap
from mbv2det.structures import IGNORE_INDEX

_NO_LABEL = -1  # in an IndexMasks table: a value that the data set does not define


@runtime_checkable
class Masks(Protocol):
    """Masks of the images of one split."""

    @property
    def labels(self) -> LabelMap:
        """Names and values of the labels."""
        ...

    @property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images without a mask."""
        ...

    def source(self, index: int) -> str:
        """What the mask of an image is read from, for messages."""
        ...

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The mask of an annotated image.

        Raises:
            DataError: If its file is damaged, or holds values that are no labels.
        """
        ...

    def with_labels(self, labels: LabelMap) -> "Masks":
        """The same masks in the labels of another map, matched by name.

        What it lacks becomes background, or is ignored where it has no background either.
        """
        ...


def _rest(labels: LabelMap) -> int:
    """What the pixels of no label are given."""
    return labels.label_of_name.get(BACKGROUND, IGNORE_INDEX)


def _translation(names: Sequence[str], labels: LabelMap) -> Int16[np.ndarray, " n"]:
    """The label of every name."""
    found = [labels.find(name) for name in names]
    return np.array([_rest(labels) if label is None else label for label in found], np.int16)


@dataclass(frozen=True)
class IndexMasks:
    """One image file of label values for each image: palette or grey PNG, as VOC's.

    Attributes:
        labels: Names of the labels, and their values in the files.
        files: Path of each image's mask; empty where it has none.
        table: Label of each value 0..255, `IGNORE_INDEX`, or -1 for a value that is none.
    """

    labels: LabelMap
    files: np.ndarray
    table: Int16[np.ndarray, "256"]

    @classmethod
    def of(
        cls, labels: LabelMap, files: Sequence[str], ignore_value: int | None = IGNORE_INDEX
    ) -> "IndexMasks":
        """Masks whose values are the labels' ids.

        Args:
            labels: Ids are values in 0..255.
            files: Path of each image's mask; empty where it has none.
            ignore_value: The data set's own; None if it has none.

        Raises:
            DataError: If there are more labels than a mask can hold, one has the ignored value, or
                no mask can hold that value.
        """
        if len(labels) > IGNORE_INDEX or not all(0 <= value <= 255 for value in labels.ids):
            raise DataError(
                f"masks: expected at most {IGNORE_INDEX} labels with values 0..255, got "
                f"{len(labels)} with values up to {max(labels.ids)}"
            )
        if ignore_value is not None and not 0 <= ignore_value <= 255:
            raise DataError(
                f"data.ignore_index: expected a value in 0..255, or null for none, got "
                f"{ignore_value}"
            )
        if ignore_value in labels.ids:
            name = labels.names[labels.label_of_id[ignore_value]]
            raise DataError(
                f"data.ignore_index: expected a value that is no label, got {ignore_value}, "
                f"the value of {name!r}"
            )
        table = np.full(256, _NO_LABEL, np.int16)
        table[list(labels.ids)] = np.arange(len(labels))
        if ignore_value is not None:
            table[ignore_value] = IGNORE_INDEX
        return cls(labels, np.array(files, dtype=np.str_), table)

    @cached_property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images without a mask."""
        return self.files != ""

    def source(self, index: int) -> str:
        """The mask's file."""
        return str(self.files[index])

    def of_images(self, rows: Sequence[int | None]) -> "IndexMasks":
        """The masks of some images, in their order; none for None."""
        return replace(
            self, files=np.array(["" if row is None else self.files[row] for row in rows])
        )

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The mask of an annotated image.

        Raises:
            DataError: If its file is no index image, or holds values that are no labels.
        """
        path = Path(self.source(index))
        values = _read_values(path)
        mask = self.table[values] if values.min() >= 0 and values.max() < 256 else None
        if mask is None or mask.min() < 0:
            known = np.flatnonzero(self.table >= 0)
            wrong = np.setdiff1d(values, known).tolist()
            raise DataError(
                f"{path}: expected the values {_ranges(known.tolist())} "
                f"of {len(self.labels)} labels and ignored pixels, got also {_ranges(wrong)}"
            )
        return mask.astype(np.uint8)

    def with_labels(self, labels: LabelMap) -> "IndexMasks":
        """The same masks in the labels of another map; labels that it lacks are background."""
        renamed = np.arange(256, dtype=np.int16)
        renamed[: len(self.labels)] = _translation(self.labels.names, labels)
        known = self.table != _NO_LABEL
        return replace(self, labels=labels, table=np.where(known, renamed[self.table], _NO_LABEL))


def _read_values(path: Path) -> np.ndarray:
    """(H, W) of whole numbers as the file has them."""
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{path}: expected a mask, found none") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected a mask image, got a file that is none") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from None
    if mode not in ("P", "L", "1", "I", "I;16"):
        raise DataError(
            f"{path}: expected an index image (palette or grey: one label value a pixel), "
            f"got an image of mode {mode}; give its colours label values first"
        )
    return values.astype(np.uint8) if values.dtype == bool else values


def _ranges(values: list[int], shown: int = 8) -> str:
    """`0..20, 255` for the numbers in order."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
    return ", ".join(texts[:shown]) + (", ..." if len(texts) > shown else "")


@dataclass(frozen=True)
class InstanceMasks:
    """Masks drawn from the outlines of instances, as COCO has them.

    A pixel of several instances is ignored, and so is a crowd's; a pixel of none, or of classes
    that are no label, is background (torchvision's rule for COCO in VOC's classes, which has no
    rule for crowds).

    Attributes:
        labels: Of the masks, `background` among them.
        class_names: Of the instances.
        sizes: (height, width) of each image.
        starts: First instance of each image, and the number of instances at the end.
        classes: Index into `class_names` of each instance.
        crowd: COCO's iscrowd.
        codes: COCO's compressed run lengths of all instances, one after the other.
        code_starts: Where each instance's begin; an instance without outline has none.
    """

    labels: LabelMap
    class_names: tuple[str, ...]
    sizes: Int64[np.ndarray, "I 2"]
    starts: Int64[np.ndarray, " I+1"]
    classes: Int64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    codes: UInt8[np.ndarray, " bytes"]
    code_starts: Int64[np.ndarray, " N+1"]

    @cached_property
    def label_of_class(self) -> Int16[np.ndarray, " K"]:
        """Label of each class of instances."""
        return _translation(self.class_names, self.labels)

    @cached_property
    def annotated(self) -> Bool[np.ndarray, " I"]:
        """False for images in which an instance that would have a label has no outline."""
        wanted = self.label_of_class[self.classes] != _rest(self.labels)
        without = (np.diff(self.code_starts) == 0) & wanted
        image = np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))
        return np.bincount(image[without], minlength=len(self.sizes)) == 0

    def source(self, index: int) -> str:
        """The outlines, which have no file of their own."""
        return "the annotation"

    def read(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """The mask of an annotated image."""
        height, width = (int(side) for side in self.sizes[index])
        mask = np.full((height, width), _rest(self.labels), np.uint8)
        covered = np.zeros((height, width), bool)
        for row in range(int(self.starts[index]), int(self.starts[index + 1])):
            label = self.label_of_class[self.classes[row]]
            if label == _rest(self.labels):
                continue
            code = self.codes[self.code_starts[row] : self.code_starts[row + 1]].tobytes()
            inside = rle.decode({"size": [height, width], "counts": code}).astype(bool)
            mask[inside] = IGNORE_INDEX if self.crowd[row] else label
            mask[inside & covered] = IGNORE_INDEX
            covered |= inside
        return mask

    def with_labels(self, labels: LabelMap) -> "InstanceMasks":
        """The same masks in the labels of another map; classes that it lacks are background."""
        return replace(self, labels=labels)
