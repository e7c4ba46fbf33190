"""A measured model, as reports and comparisons take it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbv2det.report.record import SplitRecord
from mbv2det.weights.header import WeightsInfo


@dataclass(frozen=True)
class MeasuredModel:
    """A model that was measured on a split.

    Attributes:
        file: File of the weights.
        info: Header of the weights.
        document: Content of metrics.json.
        record: Predictions for the split.
        command: Command that measured it.
        config: Configuration, as YAML.
        facts: Further facts by name, in the order in which they are shown.
    """

    file: Path
    info: WeightsInfo
    document: Mapping[str, Any]
    record: SplitRecord
    command: str = ""
    config: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_folder(self) -> Path:
        """The folder of the file, which is that of the run for the weights of a run."""
        return self.file.parent


def model_names(files: list[Path]) -> list[str]:
    """Returns a short name of each file: its stem, with folders where they tell files apart.

    The best weights of a run are named after the run: `ssdlite_voc/3`. A file that is given twice
    is numbered.
    """
    paths = [file.resolve() for file in files]
    short: list[str] = []
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        short = [_last_parts(path, length) for path in paths]
        if len(set(short)) == len(set(paths)):
            break
    return [
        name if short.count(name) == 1 else f"{name} ({short[: number + 1].count(name)})"
        for number, name in enumerate(short)
    ]


def _last_parts(path: Path, length: int) -> str:
    if path.stem == "best":
        return "/".join(path.parent.parts[-max(length, 2) :])
    return "/".join((*path.parent.parts, path.stem)[-length:])
