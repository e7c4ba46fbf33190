"""`data.yaml`: the classes and splits of YOLO data."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mbv2det.data.file_lists import is_inside, read_list, read_text, refuse_outside
from mbv2det.errors import DataError

_MAX_TEXT = 1_000_000  # characters: the file has a few lines and names
_SPLIT_KEYS = ("train", "val", "valid", "test")


@dataclass(frozen=True)
class YOLOFile:
    """What a `data.yaml` says.

    Attributes:
        path: The file.
        names: Names of the classes 0, 1, ...
        splits: Entries of each split, relative to the root of the data set: folders of images,
            lists of images or images.
        num_keypoint_values: Numbers that keypoints add to the box in a line of a label file.
    """

    path: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    num_keypoint_values: int = 0


def read_yolo_file(path: Path, root: Path) -> YOLOFile:
    """Reads `data.yaml`, or a text file with one class name per line, such as `classes.txt`.

    Args:
        path: The file.
        root: Folder of the data set; a split outside of it is refused.

    Raises:
        DataError: If the file is missing, or if a key is of a wrong type.
    """
    if path.suffix.lower() == ".txt":
        return YOLOFile(path, _check_names(path, [*read_list(path)]), {})
    content = _load(path)
    return YOLOFile(
        path,
        _read_names(path, content),
        {
            key: _entries(path, root, content.get("path"), key, content[key])
            for key in _SPLIT_KEYS
            if content.get(key) is not None
        },
        _keypoint_values(path, content.get("kpt_shape")),
    )


class _Loader(yaml.SafeLoader):
    """A loader of plain values: aliases, which can expand to any size, are refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name)")
        return super().compose_node(parent, index)


def _load(path: Path) -> dict[Any, Any]:
    text = read_text(path, "a YAML file with the names of the classes (data.yaml)")
    if len(text) > _MAX_TEXT:
        raise DataError(f"{path}: expected at most {_MAX_TEXT} characters, got {len(text)}")
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path}: expected plain YAML, got {line}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected keys such as names, train and val, got none")
    return content


def _read_names(path: Path, content: dict[Any, Any]) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(
                f"{path}: names: expected the numbers 0 to {len(names) - 1}, got {list(names)[:9]}"
            )
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{path}: names: expected a list or a table of names, got {names!r:.80}")
    if content.get("nc") not in (None, len(names)):
        raise DataError(
            f"{path}: expected nc (the number of classes) to be that of the names, "
            f"{len(names)}, got {content['nc']!r:.80}"
        )
    return _check_names(path, names)


def _check_names(path: Path, names: list[Any]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if not isinstance(name, str | int | float):
            raise DataError(f"{path}: names: expected text as name {index}, got {name!r:.80}")
    stripped = [str(name).strip() for name in names]
    twice = [name for name in stripped if stripped.count(name) > 1]
    if twice or not stripped:
        got = f"{twice[0]!r} {stripped.count(twice[0])} times" if twice else "none"
        raise DataError(f"{path}: names: expected different names of classes, got {got}")
    return tuple(stripped)


def _entries(path: Path, root: Path, base: Any, key: str, value: Any) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{path}: {key}: expected a folder, a list file or several, got {value!r}")
    if not isinstance(base, str | None):
        raise DataError(f"{path}: path: expected a folder, got {base!r:.80}")
    return tuple(_entry(path, root, base, key, entry) for entry in entries)


def _entry(path: Path, root: Path, base: str | None, key: str, entry: str) -> str:
    """Returns an entry relative to the root.

    `path` is often a folder of another machine, and Roboflow writes `../train/images` for a folder
    beside the file: where nothing is there, the entry is one below the folder of the file. It names
    `../test/images` even where there is no such folder, which only matters to who reads that split.
    """
    entry = entry.replace("\\", "/")
    folders = [path.parent / (base or "").replace("\\", "/"), path.parent, root]
    plain = entry.removeprefix("./")
    while plain.startswith("../"):
        plain = plain.removeprefix("../")
    for folder in folders:
        for candidate in (folder / entry, folder / plain):
            if is_inside(root, candidate) and candidate.exists():
                return PurePosixPath(os.path.relpath(candidate, root)).as_posix()
    missing = folders[0] / (plain if entry == f"../{plain}" else entry)
    refuse_outside(root, missing, f"{path}: {key}")
    return PurePosixPath(os.path.relpath(missing, root)).as_posix()


def _keypoint_values(path: Path, shape: Any) -> int:
    if shape is None:
        return 0
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(n) is int and 0 < n < 1000 for n in shape)
    ):
        raise DataError(f"{path}: kpt_shape: expected two numbers, got {shape!r:.80}")
    return int(shape[0] * shape[1])
