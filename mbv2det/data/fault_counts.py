"""Faults of a data set that a reader worked around, by kind."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class FaultCounts:
    """Faults that a reader worked around, with the files that have them.

    Attributes:
        files: Names of files by kind of fault, one entry for each occurrence.
    """

    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, fault: str, file: str) -> None:
        """Counts one occurrence of a fault in a file."""
        self.files[fault].append(file)

    def lines(self, shown: int = 5) -> list[str]:
        """Returns one line for each kind of fault, with its count and the first few files."""
        lines = []
        for fault, files in self.files.items():
            names = list(dict.fromkeys(files))
            more = f" and {len(names) - shown} more" if len(names) > shown else ""
            lines.append(f"{len(files)} {fault}: {', '.join(names[:shown])}{more}")
        return lines
