"""The patterns by which the names of masks belong to those of images."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath

from mbv2det.data.name_patterns import STEM
from mbv2det.prepare.inventory import folder_of
from mbv2det.prepare.pairing import Pairing, pair_by_name

_NEARLY_ALL = 0.9  # share of the masks that have an image
_FEW = 2  # files from which the last word of their names makes a group


@dataclass(frozen=True)
class NameGroup:
    """Files of one suffix whose names end with the same word, such as `_mask.png`.

    Attributes:
        word: The last word of the names; empty where names end with anything.
        suffix: The suffix, such as `.png`.
        files: Paths relative to the root.
    """

    word: str
    suffix: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class NamedMasks:
    """Masks with images, and the patterns of their names.

    Attributes:
        pairings: Folders of masks and images, with the image of each mask.
        image_name: Pattern of image files; None if {stem} is the name.
        mask_name: Pattern of mask files; None if masks have the names of their images.
    """

    pairings: Sequence[Pairing]
    image_name: str | None
    mask_name: str | None


def name_groups(files: Sequence[str]) -> list[NameGroup]:
    """Groups files by folder, suffix and the last word of their names."""
    words = {file: _last_word(PurePosixPath(file).stem) for file in files}
    counts = Counter(words.values())
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for file, word in words.items():
        path = PurePosixPath(file)
        groups[folder_of(file), path.suffix, word if counts[word] >= _FEW else ""].append(file)
    return [NameGroup(word, suffix, tuple(group)) for (_, suffix, word), group in groups.items()]


def _last_word(stem: str) -> str:
    """Returns the word at the end of a name, without the letters of a number such as `12b`."""
    match = re.search(r"[_\W]([A-Za-z]+(?:\d?[A-Za-z])*)$", stem)
    return match[1] if match else ""


def match_names(masks: Sequence[str], images: Sequence[str]) -> NamedMasks | None:
    """Returns the images of masks by the simplest patterns that fit nearly all masks.

    Args:
        masks: Mask files, relative to the root.
        images: Image files, relative to the root.
    """
    for mask_affixes, image_affixes in _hypotheses(masks, images):
        image_of = {_stripped(image, image_affixes): image for image in images}
        mask_of = {_stripped(mask, mask_affixes): mask for mask in masks}
        pairings = pair_by_name(
            (name for name in mask_of if name), (name for name in image_of if name)
        )
        if sum(map(len, pairings)) < _NEARLY_ALL * len(masks):
            continue
        real = [_with_files(pairing, mask_of, image_of) for pairing in pairings]
        together = any(pairing.annotations == pairing.images for pairing in real)
        return NamedMasks(
            real,
            _pattern(image_affixes, images, needed=image_affixes != ("", "")),
            _pattern(mask_affixes, masks, needed=together or mask_affixes != ("", "")),
        )
    return None


def _with_files(
    pairing: Pairing, mask_of: Mapping[str, str], image_of: Mapping[str, str]
) -> Pairing:
    """Returns a pairing of stripped names with the files instead."""
    matches = {mask_of[mask]: image_of[image] for mask, image in pairing.matches.items()}
    return Pairing(pairing.annotations, pairing.images, matches)


Affixes = tuple[str, str]


def _hypotheses(masks: Sequence[str], images: Sequence[str]) -> Iterator[tuple[Affixes, Affixes]]:
    """Yields affixes of masks and of images, short ones first."""
    choices = [
        [(p, s) for p in {"", prefix} for s in {"", suffix}]
        for prefix, suffix in (_common_affixes(masks), _common_affixes(images))
    ]
    pairs = [(mask, image) for mask in choices[0] for image in choices[1]]
    yield from sorted(pairs, key=lambda pair: (sum(map(len, pair[0] + pair[1])), pair))


def _common_affixes(files: Sequence[str]) -> Affixes:
    """Returns the words that all names start with, and end with, up to a separator."""
    stems = [PurePosixPath(file).stem for file in files]
    prefix = _common_start(stems)
    suffix = _common_start([stem[::-1] for stem in stems])[::-1]
    before = re.search(r".*[_\W]", prefix)
    after = re.search(r"[_\W].*", suffix)
    return before[0] if before else "", after[0] if after else ""


def _common_start(names: Sequence[str]) -> str:
    # What the first and the last in alphabetical order have in common, all between them have.
    pairs = zip(min(names, default=""), max(names, default=""), strict=False)
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _stripped(file: str, affixes: Affixes) -> str:
    """Returns a path without the affixes of its name and with its suffix; empty if it has none."""
    prefix, suffix = affixes
    path = PurePosixPath(file)
    stem = path.stem
    if not (stem.startswith(prefix) and stem.endswith(suffix)):
        return ""
    stem = stem[len(prefix) : len(stem) - len(suffix)]
    return f"{folder_of(file)}/{stem}{path.suffix}" if stem else ""


def _pattern(affixes: Affixes, files: Sequence[str], *, needed: bool) -> str | None:
    if not needed:
        return None
    suffixes = {PurePosixPath(file).suffix for file in files}
    return f"{affixes[0]}{STEM}{affixes[1]}{suffixes.pop() if len(suffixes) == 1 else ''}"
