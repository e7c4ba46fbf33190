"""Looking for the files of a data set, with errors that tell where."""

import difflib
import os
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
