"""Class names, the network's labels, and the data set's own ids: the only place that knows all."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mbv2det.errors import DataError

BACKGROUND = "background"

# Pascal VOC's classes in the order of its masks' values, which start at 1.
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

# What COCO calls the classes that VOC calls otherwise.
_VOC_NAME_OF = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


def with_background(names: Sequence[str]) -> tuple[str, ...]:
    """Names of boxes as names of a mask's labels: background first."""
    return (BACKGROUND, *(name for name in names if name != BACKGROUND))


@dataclass(frozen=True)
class LabelMap:
    """Names and outside ids in label order: label i is `names[i]` here, `ids[i]` in files.

    Of boxes, whose labels do not count background, or of masks, whose labels do.

    Attributes:
        names: Unique.
        ids: The data set's own category ids or mask values, gaps and all; unique.

    Raises:
        DataError: For no names, or a name or id that appears twice.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("expected at least one class, got none")
        for what, values in (("name", self.names), ("id", self.ids)):
            seen: set[str | int] = set()
            for value in values:
                if value in seen:
                    raise DataError(f"expected unique classes, got the {what} {value!r} twice")
                seen.add(value)
        if len(self.names) != len(self.ids):
            raise DataError(f"expected an id a name, got {len(self.names)} and {len(self.ids)}")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_masks(cls, names: Sequence[str]) -> "LabelMap":
        """Labels of masks whose values are 0, 1, ... in the order of the names."""
        return cls(tuple(names), tuple(range(len(names))))

    @cached_property
    def label_of_name(self) -> dict[str, int]:
        """Label by name."""
        return {name: label for label, name in enumerate(self.names)}

    @cached_property
    def label_of_id(self) -> dict[int, int]:
        """Label by the data set's own id."""
        return {id_: label for label, id_ in enumerate(self.ids)}

    @cached_property
    def _label_of_voc_name(self) -> dict[str, int]:
        return {_VOC_NAME_OF.get(name, name): label for label, name in enumerate(self.names)}

    def find(self, name: str) -> int | None:
        """Label of a class of another data set, by its name or by VOC's name for COCO's."""
        if name in self.label_of_name:
            return self.label_of_name[name]
        return self._label_of_voc_name.get(_VOC_NAME_OF.get(name, name))

    def choose(self, names: Sequence[str]) -> "LabelMap":
        """The map of some of the classes, in the order given.

        Raises:
            DataError: For a name that is not among the classes.
        """
        for name in names:
            if name not in self.label_of_name:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                known = ", ".join(self.names[:12]) + (", ..." if len(self) > 12 else "")
                raise DataError(
                    f"the data set has no class {name!r} (it has {len(self)}: {known}){hint}"
                )
        return LabelMap(tuple(names), tuple(self.ids[self.label_of_name[n]] for n in names))
