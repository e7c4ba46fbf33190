"""The files of a folder of data, as far as formats are told apart by them."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mbv2det.data.file_lists import is_hidden
from mbv2det.data.images import SUFFIXES
from mbv2det.errors import DataError

_SHOWN = 6  # suffixes in a summary


@dataclass(frozen=True)
class Inventory:
    """The files below a folder, without hidden ones.

    Attributes:
        root: The folder.
        files: Paths of the files relative to it, with `/`, sorted.
    """

    root: Path
    files: tuple[str, ...]

    def of(self, suffixes: Collection[str]) -> list[str]:
        """Returns the files with one of some suffixes, given in lower case."""
        return [file for file in self.files if PurePosixPath(file).suffix.lower() in suffixes]

    @property
    def images(self) -> list[str]:
        """The image files, masks among them."""
        return self.of(SUFFIXES)

    def summary(self) -> str:
        """Returns the numbers of files by suffix, for messages."""
        counts = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in self.files)
        parts = [f"{count} {suffix}" for suffix, count in counts.most_common(_SHOWN)]
        return ", ".join(parts) or "no files"


def take_inventory(root: Path) -> Inventory:
    """Lists the files of a folder; if all are in one folder of it, that folder becomes the root.

    Archives often unpack into a folder of their own name. Links are followed.

    Raises:
        DataError: If there is no such folder.
    """
    if not root.is_dir():
        got = "a file" if root.exists() else "none"
        raise DataError(f"{root}: expected the folder of a data set, found {got}")
    files = tuple(sorted(_walk(root)))
    while True:
        tops = {PurePosixPath(file).parts[0] for file in files}
        if len(tops) != 1 or any("/" not in file for file in files):
            return Inventory(root, files)
        (top,) = tops
        root, files = root / top, tuple(file.removeprefix(f"{top}/") for file in files)


def _walk(root: Path) -> Iterator[str]:
    """Yields the files below a folder; a folder that links lead to twice is listed once."""
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        relative = PurePosixPath(Path(parent).relative_to(root).as_posix())
        yield from ((relative / name).as_posix() for name in names if not is_hidden(name))


def folder_of(file: str) -> str:
    """Returns the folder of a file, relative to the root: `.` for the root itself."""
    return PurePosixPath(file).parent.as_posix()


def common_folder(files: Iterable[str]) -> str:
    """Returns the deepest folder that has all of some files, relative to the root."""
    folders = {folder_of(file) for file in files}
    return PurePosixPath(os.path.commonpath(folders) if folders else ".").as_posix()
