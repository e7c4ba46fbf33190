"""Looking for the files of a data set, with errors that tell where."""

import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path

from mbv2det.errors import DataError


def existing_folder(path: Path) -> Path:
    """The path, if it is a folder.

    Raises:
        DataError: Naming the nearest thing that does exist.
    """
    if path.is_dir():
        return path
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    near = difflib.get_close_matches(path.name, listing(parent) if parent.is_dir() else (), n=1)
    hint = f"; did you mean {parent / near[0]}?" if near and parent == path.parent else ""
    raise DataError(f"{path}: expected a folder, found none ({parent} exists){hint}")


def listing(folder: Path) -> set[str]:
    """Names in a folder: one system call for thousands of files."""
    return {entry.name for entry in os.scandir(folder)}


def files_by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    """Files below a folder, as paths relative to it, by that path without its suffix.

    Args:
        folder: Searched to any depth.
        suffixes: In lower case, of the files wanted.

    Raises:
        DataError: If the folder does not exist.
    """
    existing_folder(folder)
    found: dict[str, str] = {}
    for place, _, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        for path in (inside / name for name in names):
            if path.suffix.lower() in suffixes:
                stem, file = path.with_suffix("").as_posix(), path.as_posix()
                if stem in found:
                    raise DataError(
                        f"{folder}: expected one file a name, got {found[stem]}, {file}"
                    )
                found[stem] = file
    return dict(sorted(found.items()))


def read_list(path: Path) -> list[str]:
    """Lines of a list file, empty ones left out.

    Raises:
        DataError: If the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a list of image names, found none")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def without_suffix(name: str, suffixes: Collection[str]) -> str:
    """A listed name as `files_by_stem` knows it, whether or not the list has suffixes."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in suffixes else path).as_posix()


def without_column(line: str) -> str:
    """A line of a list without the -1, 0 or 1 that VOC's lists of one class put after the name."""
    return re.sub(r"\s+(-1|0|1)$", "", line)
