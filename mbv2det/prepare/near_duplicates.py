"""Images that belong together: nearly the same picture, or made from one."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64, UInt64
from PIL import Image

from mbv2det.console import track
from mbv2det.data.image_errors import image_errors
from mbv2det.errors import DataError

_SIDE = 16  # a hash has 16 x 16 bits
_NEAR = 12  # bits in which the hashes of nearly the same pictures differ
_FLAT = 4  # grey levels; smaller differences of neighbours are noise, not pictures
_MOST_COMPARED = 20_000  # images: all pairs are compared
_MANY = 500  # images from which a progress bar is shown
_ROWS = 512  # hashes that are compared with all others at a time
_FEW_VIDEOS = 5

_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9a-zA-Z]+$")
_FRAME = re.compile(r"(.+?)[_\W]*(?:frame|frm)[_\W]*\d+$", re.IGNORECASE)


def groups_of(paths: Sequence[Path], names: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """Returns the number of each image's group; images of one group belong in one split.

    Together are images that Roboflow made from one (`NAME.rf.HASH`), the frames of a video where
    there are at least five videos, and images whose difference hashes differ in at most 12 of 256
    bits (up to 20,000 images).

    Args:
        paths: Image files.
        names: Their names, with folders and without suffix.
    """
    parents = np.arange(len(paths))
    for together in (_same_source(names), _videos(names)):
        for members in together:
            _join(parents, members)
    if len(paths) <= _MOST_COMPARED:
        for pair in _near_pairs(_hashes(paths)):
            _join(parents, pair)
    roots = [_root(parents, index) for index in range(len(parents))]
    return np.unique(np.array(roots, np.int64), return_inverse=True)[1].astype(np.int64)


def _same_source(names: Sequence[str]) -> list[list[int]]:
    return _by_key(_ROBOFLOW.match(name) for name in names)


def _videos(names: Sequence[str]) -> list[list[int]]:
    found = _by_key(_FRAME.match(name) for name in names)
    return found if len(found) >= _FEW_VIDEOS else []


def _by_key(matches: Iterable[re.Match[str] | None]) -> list[list[int]]:
    """Returns the positions that have the same first group of a match."""
    positions: dict[str, list[int]] = defaultdict(list)
    for index, match in enumerate(matches):
        if match is not None:
            positions[PurePosixPath(match[1]).name].append(index)
    return list(positions.values())


def _hashes(paths: Sequence[Path]) -> list[UInt64[np.ndarray, "4"] | None]:
    quiet = len(paths) < _MANY
    tracked = track(paths, "Comparing images", quiet=quiet)
    return [difference_hash(path) for path in tracked]


def difference_hash(path: Path) -> UInt64[np.ndarray, "4"] | None:
    """Returns which neighbours in a row of a small grey copy become brighter, as 256 bits.

    It is the same for copies of other sizes, brightness and compression.

    Returns:
        None for a file that cannot be read, or a picture without differences.
    """
    try:
        with image_errors(path), Image.open(path) as image:
            image.draft("L", (8 * _SIDE, 8 * _SIDE))  # a JPEG file is decoded at that size
            small = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    except DataError:
        return None
    pixels = np.asarray(small).astype(np.int64)
    if np.ptp(pixels) < _FLAT:
        return None
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).view(np.uint64)


def _near_pairs(hashes: Sequence[UInt64[np.ndarray, "4"] | None]) -> Iterable[list[int]]:
    """Yields the pairs of images whose hashes nearly agree."""
    known = [index for index, value in enumerate(hashes) if value is not None]
    if not known:
        return
    table = np.stack([value for value in hashes if value is not None])
    for start in range(0, len(table), _ROWS):
        part = table[start : start + _ROWS]
        bits = np.bitwise_count(part[:, None] ^ table[None]).sum(axis=2, dtype=np.int64)
        for row, column in np.argwhere(bits <= _NEAR).tolist():
            if start + row < column:
                yield [known[start + row], known[column]]


def _join(parents: Int64[np.ndarray, " N"], members: Sequence[int]) -> None:
    first = _root(parents, members[0])
    for member in members[1:]:
        parents[_root(parents, member)] = first


def _root(parents: Int64[np.ndarray, " N"], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = int(parents[index])
    return index
