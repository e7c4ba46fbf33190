"""`LabelMap`: class names, with the network's labels and the data set's own ids."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mbv2det.errors import DataError

BACKGROUND = "background"

# Pascal VOC's classes in the order of their mask values, which start at 1.
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

# VOC's name for each COCO class that the two data sets spell differently.
_VOC_NAME_OF = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


def voc_name(name: str) -> str:
    """Returns VOC's name of a class that COCO spells differently; other names are not changed."""
    return _VOC_NAME_OF.get(name, name)


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the class names of boxes as class names of masks: background comes first."""
    return (BACKGROUND, *(name for name in names if name != BACKGROUND))


@dataclass(frozen=True)
class LabelMap:
    """Class names and the data set's own ids, in the order of the network's labels.

    Label i has the name `names[i]` and, in files, the id `ids[i]`. A label map of boxes has no
    background; in a label map of masks, background is a class like any other.

    A split without objects has no classes where its objects are all that names them, as in VOC.

    Attributes:
        names: Unique class names.
        ids: Unique category ids or mask values of the data set; they may have gaps.

    Raises:
        DataError: If a name or an id appears twice, or if the numbers of
            names and ids differ.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for column, values in (("name", self.names), ("id", self.ids)):
            seen: set[str | int] = set()
            for value in values:
                if value in seen:
                    raise DataError(f"expected unique classes, got the {column} {value!r} twice")
                seen.add(value)
        if len(self.names) != len(self.ids):
            raise DataError(
                f"expected one id for each name, got {len(self.names)} names and "
                f"{len(self.ids)} ids"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_masks(cls, names: Sequence[str]) -> "LabelMap":
        """Returns the label map of masks whose values are 0, 1, ... in the order of the names."""
        return cls(tuple(names), tuple(range(len(names))))

    @cached_property
    def label_of_name(self) -> dict[str, int]:
        """Label of each class name."""
        return {name: label for label, name in enumerate(self.names)}

    @cached_property
    def label_of_id(self) -> dict[int, int]:
        """Label of each of the data set's own ids."""
        return {id_: label for label, id_ in enumerate(self.ids)}

    @cached_property
    def _label_of_voc_name(self) -> dict[str, int]:
        return {voc_name(name): label for label, name in enumerate(self.names)}

    def find(self, name: str) -> int | None:
        """Returns the label of a class of another data set, or None if there is no such class.

        Args:
            name: Class name; COCO's and VOC's spellings of a class match each other.
        """
        if name in self.label_of_name:
            return self.label_of_name[name]
        return self._label_of_voc_name.get(voc_name(name))

    def choose(self, names: Sequence[str]) -> "LabelMap":
        """Returns the label map of some of the classes, in the order of the names; ids are kept.

        Raises:
            DataError: If there is no name, or if one is not among the classes or appears twice.
        """
        if not names:
            raise DataError("expected at least one class, got none")
        for name in names:
            if name not in self.label_of_name:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                known = ", ".join(self.names[:12]) + (", ..." if len(self) > 12 else "")
                raise DataError(
                    f"expected classes of the data set ({len(self)}: {known}), got {name!r}{hint}"
                )
        return LabelMap(tuple(names), tuple(self.ids[self.label_of_name[n]] for n in names))
