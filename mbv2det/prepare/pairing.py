"""Which folder of annotation files belongs to which folder of images: they have the same names."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mbv2det.prepare.inventory import common_folder
from mbv2det.prepare.split_words import split_of


@dataclass(frozen=True)
class Pairing:
    """A folder of annotation files and a folder of images, either of which may have subfolders.

    Attributes:
        annotations: The folder of annotation files, relative to the root.
        images: The folder of images; it may be the same.
        matches: Image of each annotation file.
    """

    annotations: str
    images: str
    matches: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.matches)


def pair_by_name(files: Iterable[str], images: Iterable[str]) -> list[Pairing]:
    """Pairs files with the images of the same names, folder by folder.

    Folders named after splits are folders of their own: `labels/train/a.txt` and
    `images/train/a.jpg` are in `labels/train` and `images/train`.

    Args:
        files: Annotation files, relative to the root.
        images: Image files, relative to the root.

    Returns:
        The pairs of folders, those with most files first.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_stem[PurePosixPath(image).stem].append(image)
    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for file in files:
        candidates = by_stem.get(PurePosixPath(file).stem)
        if candidates:
            image = max(candidates, key=lambda image: _closeness(file, image))
            groups[_folders(file, image)][file] = image
    pairings = [_pairing(*folders, matches) for folders, matches in groups.items()]
    return sorted(pairings, key=lambda pairing: (-len(pairing), pairing.annotations))


def _pairing(annotations: str, images: str, matches: Mapping[str, str]) -> Pairing:
    if annotations == images:
        annotations = images = common_folder(matches)
    return Pairing(annotations, images, matches)


def _closeness(file: str, image: str) -> tuple[int, int]:
    """Returns how many folders at the end, and at the start, two paths have in common."""
    own, other = PurePosixPath(file).parent.parts, PurePosixPath(image).parent.parts
    return _num_equal(own[::-1], other[::-1]), _num_equal(own, other)


def _num_equal(first: Sequence[str], second: Sequence[str]) -> int:
    equal = [a == b for a, b in zip(first, second, strict=False)]
    return equal.index(False) if False in equal else len(equal)


def _folders(file: str, image: str) -> tuple[str, str]:
    """Returns the folders of two files without the subfolders that both have."""
    own, other = PurePosixPath(file).parent.parts, PurePosixPath(image).parent.parts
    while own and other and own[-1] == other[-1] and split_of(own[-1]) is None:
        own, other = own[:-1], other[:-1]
    return PurePosixPath(*own).as_posix(), PurePosixPath(*other).as_posix()
