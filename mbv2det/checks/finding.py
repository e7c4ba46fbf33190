"""What a check found, and the kinds of what can be found.

A *fault* makes training or metrics wrong, or may do so; a *remark* is worth knowing. Only faults
give the command an exit code of 1. Training refuses a split with a fault that *misleads*: it would
run to its end and produce a useless model.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        name: Short name, such as `boxes in fractions`.
        remedy: What to do about it, as an imperative.
        is_fault: False for a remark.
        misleads: Whether training refuses to start.
    """

    name: str
    remedy: str
    is_fault: bool = True
    misleads: bool = False


@dataclass(frozen=True)
class Finding:
    """One fault or remark.

    Attributes:
        kind: Its kind.
        split: Name of the split: `train` or `val`, or `data` for what concerns both.
        message: What was found.
        file: File that has it; empty if it is not about one file.
        record: The object of the file, by its number from 1, class and box; empty if it is about
            the whole file.
        index: Index of the image in the split; -1 if it is not about one image.
    """

    kind: Kind
    split: str
    message: str
    file: str = ""
    record: str = ""
    index: int = -1

    @property
    def sentence(self) -> str:
        """Returns what was found and what to do."""
        return f"{self.message}; {self.kind.remedy}" if self.kind.remedy else self.message

    def document(self) -> dict[str, object]:
        """Returns the finding as JSON values."""
        return {
            "kind": self.kind.name,
            "fault": self.kind.is_fault,
            "split": self.split,
            "file": self.file or None,
            "record": self.record or None,
            "message": self.message,
            "remedy": self.kind.remedy or None,
        }


def faults_of(findings: Iterable[Finding]) -> list[Finding]:
    """Returns the findings that are faults."""
    return [finding for finding in findings if finding.kind.is_fault]


def by_kind(findings: Iterable[Finding]) -> dict[tuple[Kind, str], list[Finding]]:
    """Returns the findings by kind and split: faults first, each in the order of occurrence."""
    groups: dict[tuple[Kind, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.split), []).append(finding)
    return dict(sorted(groups.items(), key=lambda group: not group[0][0].is_fault))


# Annotation files.

UNREADABLE_SPLIT = Kind("annotation that cannot be read", "correct this file and check again")
WORKED_AROUND = Kind("repaired while reading", "correct the annotation")
LEFT_OUT_BY_SETTINGS = Kind("left out by the settings", "", is_fault=False)
HIDDEN_FILES = Kind("hidden files", "delete them: they are no images of the data set")

# Boxes.

OUTSIDE = Kind("boxes outside of the image", "correct or delete the box")
REACHING_OUT = Kind("boxes reaching out of the image", "clip the box to the image")
INVERTED = Kind("inverted boxes", "swap the corners, or delete the box")
ZERO_SIZE = Kind("boxes of no width or height", "correct or delete the box")
DUPLICATED = Kind("duplicated boxes", "delete all but one")
FRACTIONS = Kind(
    "boxes in fractions",
    "multiply x by the width and y by the height of the image: boxes are in pixels",
    misleads=True,
)
CORNERS = Kind(
    "corners where widths belong",
    "write [x, y, width, height], not the corners [x1, y1, x2, y2]",
    misleads=True,
)

# Classes.

ALL_CROWD = Kind(
    "all objects are crowds",
    "set iscrowd to 0 for single objects: detectors need not find crowds",
    misleads=True,
)
NO_OBJECTS = Kind("no objects at all", "point the split to the annotated files", misleads=True)
SAME_NAME = Kind("classes that differ only by case, spaces or the like", "give both the same name")
EMPTY_CLASS = Kind("classes without objects", "annotate some, or leave the class out")
UNKNOWN_CLASS = Kind("classes unknown in train", "rename the class, or annotate it in train too")
EMPTY_CLASS_OF_VAL = Kind("classes not measured: no objects in val", "", is_fault=False)
CLASS_COUNTS = Kind("objects by class", "", is_fault=False)
EMPTY_IMAGES = Kind("images without objects", "", is_fault=False)

# Image files and masks.

UNREADABLE = Kind(
    "images that cannot be read",
    "replace or delete the file; data.on_error=skip trains without it",
)
TRUNCATED = Kind("truncated images", "replace the file: its missing part is blank")
OTHER_SIZE = Kind(
    "images of another size than annotated",
    "annotate the file as it is now; data.on_error=skip trains without it",
)
ROTATED = Kind(
    "images rotated by EXIF",
    "the annotation fits the pixels as stored: remove the orientation tag, since other programs "
    "turn the image",
)
DEEP = Kind(
    "images of more than 8 bits",
    "set data.value_range to the values that matter, or convert them to 8 bits",
)
MASK_SIZE = Kind(
    "masks of another size than the image",
    "draw the mask at the size of the image; data.on_error=skip trains without it",
)
MASK_UNUSABLE = Kind(
    "masks that cannot be used", "correct the file, or the settings of the mask values"
)
LEAK = Kind(
    "the same image in train and val", "delete one: its metrics say little about other images"
)
REPEATED = Kind("the same image twice in a split", "", is_fault=False)

# The data set as training sees it.

NOT_PERFECT = Kind(
    "ground truth that does not measure 1.0", "correct the other faults, and check again"
)
MEASURED = Kind("ground truth through the evaluator", "", is_fault=False)
STATISTICS = Kind("objects at the size of the network input", "", is_fault=False)
