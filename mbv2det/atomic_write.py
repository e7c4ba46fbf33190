"""Atomic writes: a file appears complete or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` if the block succeeds.

    The temporary file lies in the same folder, which is created if needed. If the block raises, the
    temporary file is deleted and an existing file at `path` stays as it was.

    Args:
        path: Final path of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes plain values (dictionaries, lists, numbers, strings, null) as indented JSON."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
