"""The files of a data set: folders, and text files that list the images of a split."""

import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path

from mbv2det.errors import DataError


def existing_folder(path: Path) -> Path:
    """Returns the path if it is a folder.

    Raises:
        DataError: If it is not a folder; the message names the part of the path that exists and,
            if there is one, a folder or file of a similar name.
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
    """Returns the names in a folder, with one system call instead of one per file."""
    return {entry.name for entry in os.scandir(folder)}


def files_by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    """Returns the relative paths of the files below a folder, by the same path without suffix.

    Args:
        folder: Folder that is searched to any depth.
        suffixes: Suffixes of the files to return, in lower case.

    Raises:
        DataError: If the folder does not exist, or if two paths differ only in their suffixes.
    """
    existing_folder(folder)
    files: dict[str, str] = {}
    for parent, _, names in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        for path in (relative / name for name in names):
            if path.suffix.lower() in suffixes:
                stem, file = path.with_suffix("").as_posix(), path.as_posix()
                if stem in files:
                    raise DataError(
                        f"{folder}: expected one file per name, got {files[stem]}, {file}"
                    )
                files[stem] = file
    return dict(sorted(files.items()))


def read_list(path: Path) -> list[str]:
    """Returns the lines of a list file, without empty ones.

    Raises:
        DataError: If the file is missing or in another encoding.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a list of image names, found none")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a list of names in UTF-8, got {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def listed_name(line: str, known: Collection[str], suffixes: Collection[str]) -> str:
    """Returns the name, without suffix, in a line of a list.

    A line that names a file is that file. Only another line is taken for a name followed by the
    -1, 0 or 1 of VOC's lists of one class: "Leaf 1" may be a file, and so may "Leaf".

    Args:
        line: Line of the list.
        known: Names of the files, without suffix.
        suffixes: Suffixes that listed names may have.
    """
    name = without_suffix(line, suffixes)
    return name if name in known else without_suffix(without_column(line), suffixes)


def without_suffix(name: str, suffixes: Collection[str]) -> str:
    """Returns a listed name without its suffix, as a key of `files_by_stem`."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in suffixes else path).as_posix()


def without_column(line: str) -> str:
    """Returns a line without the -1, 0 or 1 after the name that VOC's lists of one class have."""
    return re.sub(r"\s+(-1|0|1)$", "", line)
