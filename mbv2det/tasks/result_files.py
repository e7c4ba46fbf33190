"""What the result files of all tasks share: how an image is named, and files that grow."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Folders of images and videos below that of the results.
PICTURES = "pictures"
VIDEOS = "videos"
MASKS = "masks"


@dataclass(frozen=True)
class ImageInfo:
    """Names of a predicted image in result files.

    Attributes:
        name: Path without suffix below the folders of result files; unique within a run.
        file_name: Path of the image relative to the input that it belongs to, with more of its
            folders where two inputs would share it; the file of a video, the address of a stream.
        size: (height, width) in pixels.
        frame: Number of the frame within a video or stream, from 0; None for an image file.
        number: Number that the name is, as are COCO's; None if it is none, or an earlier image has
            the same number.
    """

    name: str
    file_name: str
    size: tuple[int, int]
    frame: int | None = None
    number: int | None = None

    @property
    def image_id(self) -> int | str:
        """Unique id in COCO's files: the number if there is one, else the name."""
        return self.name if self.number is None else self.number

    def record(self) -> dict[str, Any]:
        """Keys that identify the image in a record of a JSON file."""
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"image_id": self.image_id, "file_name": self.file_name, **frame}


class GrowingFile:
    """A text file of many entries that is complete on disk whenever an entry has been added.

    An interrupted run leaves a valid file, and no entry stays in memory.

    Args:
        path: Where to write; folders are made, a file of the same name is replaced.
        head: Text before the first entry.
        separator: Text between two entries.
        tail: Text after the last entry; it moves on with every entry that is added.
    """

    def __init__(self, path: Path, head: str = "", separator: str = "", tail: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._separator = separator
        self._tail = tail.encode()
        self._file = path.open("wb")
        self._end = 0
        self._count = 0
        self._put(head)

    def add(self, entries: Sequence[str]) -> None:
        """Writes entries to disk."""
        if entries:
            self._put((self._separator if self._count else "") + self._separator.join(entries))
            self._count += len(entries)

    def close(self) -> None:
        """Closes the file; whatever an interrupt left behind its last complete entry goes."""
        self._put("")
        self._file.close()

    def _put(self, text: str) -> None:
        content = text.encode()
        self._file.seek(self._end)
        self._file.write(content + self._tail)
        self._file.truncate()
        self._file.flush()
        self._end += len(content)


def json_list(path: Path) -> GrowingFile:
    """Returns a JSON file with a list; its entries are `json_text` of records."""
    return GrowingFile(path, "[\n", ",\n", "\n]\n")


def json_text(value: Any) -> str:
    """Returns a value as JSON on one line."""
    return json.dumps(value)


def csv_line(row: Sequence[Any]) -> str:
    """Returns values as a line of a table, quoted where needed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
