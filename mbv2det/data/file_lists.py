"""The files of a data set: folders, and text files that list the images of a split."""

import codecs
import difflib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from mbv2det.data.fault_counts import FaultCounts
from mbv2det.errors import DataError

_MAX_TEXT = 200_000_000  # bytes of a text file
_MAX_COMPARED = 20_000  # names in a folder that a missing one is compared with


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
    hint = nearest_name(parent, path.name) if parent == path.parent else ""
    raise DataError(f"{path}: expected a folder, found none ({parent} exists){hint}")


def nearest_name(folder: Path, name: str) -> str:
    """Returns a hint at the file or folder of the most similar name; empty if there is none."""
    names = [n for n in listing(folder) if not is_hidden(n)] if folder.is_dir() else []
    near = difflib.get_close_matches(name, names[:_MAX_COMPARED], n=1)
    return f"; did you mean {folder / near[0]}?" if near else ""


def listing(folder: Path) -> set[str]:
    """Returns the names in a folder, with one system call instead of one per file."""
    return {entry.name for entry in os.scandir(folder)}


def is_hidden(name: str) -> bool:
    """Returns True for files and folders that systems and editors add to a folder of data."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(
    folder: Path, suffixes: Collection[str], faults: FaultCounts | None = None
) -> Iterator[Path]:
    """Yields the relative paths of the files below a folder, unsorted.

    Args:
        folder: Folder that is searched to any depth.
        suffixes: Suffixes of the files, in lower case.
        faults: Where hidden files and folders, which are left out, are counted.

    Raises:
        DataError: If the folder does not exist.
    """
    existing_folder(folder)
    for parent, folders, names in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        paths = [relative / name for name in names]
        paths = [path for path in paths if path.suffix.lower() in suffixes]
        hidden = [path for path in (*paths, *(relative / f for f in folders)) if _is_hidden(path)]
        for path in hidden if faults is not None else ():
            faults.add("hidden files or folders left out", str(path))  # type: ignore[union-attr]
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (path for path in paths if not _is_hidden(path))


def _is_hidden(path: Path) -> bool:
    return is_hidden(path.name)


def files_by_stem(
    folder: Path, suffixes: Collection[str], faults: FaultCounts | None = None
) -> dict[str, str]:
    """Returns the relative paths of the files below a folder, by the same path without suffix.

    Args:
        folder: Folder that is searched to any depth.
        suffixes: Suffixes of the files to return, in lower case.
        faults: Where hidden files and folders, which are left out, are counted.

    Raises:
        DataError: If the folder does not exist, or if two paths differ only in their suffixes.
    """
    files: dict[str, str] = {}
    for path in files_below(folder, suffixes, faults):
        stem, file = path.with_suffix("").as_posix(), path.as_posix()
        if stem in files:
            raise DataError(f"{folder}: expected one file per name, got {files[stem]}, {file}")
        files[stem] = file
    return dict(sorted(files.items()))


def find_file(folder: Path, name: str, root: Path) -> str | None:
    r"""Returns the path, relative to a folder, of a file that an annotation names.

    Names that were written on another machine are followed by their end: `C:\data\train\x.jpg` is
    `x.jpg`, and `train/x.jpg` is `x.jpg` in a folder called `train`.

    Args:
        folder: Folder that names are relative to.
        name: The name as it is written.
        root: Folder that the file has to be in.

    Returns:
        `name` if there is such a file, another path if it was found by its end, or None.
    """
    if not Path(name).is_absolute() and is_inside(root, folder / name) and is_file(folder / name):
        return name
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".")]
    foreign = "\\" in name or Path(name).is_absolute()
    for first in range(len(parts)):
        dropped, rest = tuple(parts[:first]), "/".join(parts[first:])
        known = not dropped or folder.parts[-len(dropped) :] == dropped
        if (foreign or known) and is_inside(root, folder / rest) and is_file(folder / rest):
            return rest
    return None


def is_inside(root: Path, path: Path) -> bool:
    """Returns True for a path below a folder; links in the folder may lead anywhere."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root))


def refuse_outside(root: Path, path: Path, source: str) -> None:
    """Refuses a path that leads out of the folder of the data set.

    Args:
        root: Folder of the data set.
        path: The path.
        source: File and record that name it, for the message.

    Raises:
        DataError: If the path is not below the folder.
    """
    if not is_inside(root, path):
        raise DataError(f"{source}: expected a path inside of data.root ({root}), got {path}")


def is_file(path: Path) -> bool:
    """Returns True for an existing file; names that no file can have are none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path, expected: str = "a text file") -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Args:
        path: Path of the file.
        expected: What the file is, for messages.

    Raises:
        DataError: If the file is missing, or no such text.
    """
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise DataError(f"{path}: expected {expected} of at most {_MAX_TEXT} bytes, got more")
        content = path.read_bytes()
    except FileNotFoundError:
        hint = nearest_name(path.parent, path.name)
        raise DataError(f"{path}: expected {expected}, found none{hint}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected {expected}, cannot be read ({error})") from None
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: expected {expected} in UTF-8 or UTF-16, got other bytes in line {line}; save "
            "it as UTF-8"
        ) from None


def read_list(path: Path) -> list[str]:
    """Returns the lines of a list file, without empty ones.

    Raises:
        DataError: If the file is missing, or no text.
    """
    text = read_text(path, "a list of image names")
    return [line.strip() for line in text.splitlines() if line.strip()]


def listed_name(line: str, known: Collection[str], suffixes: Collection[str]) -> str:
    """Returns the name, without suffix, in a line of a list.

    A line that names a file is that file. Only another line is taken for a name followed by the
    -1, 0 or 1 of VOC's lists of one class: "Leaf 1" may be a file, and so may "Leaf". Folders of
    another machine in front of the name are dropped where the rest is a file.

    Args:
        line: Line of the list.
        known: Names of the files, without suffix.
        suffixes: Suffixes that listed names may have.
    """
    for text in (line, without_column(line)):
        name = without_suffix(text, suffixes)
        if name in known:
            return name
    for text in (line, without_column(line)):
        parts = re.split(r"[\\/]+", without_suffix(text.replace("\\", "/"), suffixes))
        for first in range(len(parts)):
            name = "/".join(parts[first:])
            if name in known:
                return name
    return without_suffix(without_column(line), suffixes)


def without_suffix(name: str, suffixes: Collection[str]) -> str:
    """Returns a listed name without its suffix, as a key of `files_by_stem`."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in suffixes else path).as_posix()


def without_column(line: str) -> str:
    """Returns a line without the -1, 0 or 1 after the name that VOC's lists of one class have."""
    return re.sub(r"\s+(-1|0|1)$", "", line)
