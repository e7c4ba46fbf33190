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

    The best weights of a run are named after the run: `ssdlite_voc/3`.
    """
    names = []
    for file in files:
        path = file.resolve()
        in_run = path.stem == "best"
        parts = path.parent.parts[1:] if in_run else (*path.parent.parts[1:], path.stem)
        names.append(parts)
    for length in range(1, max(len(parts) for parts in names) + 1):
        # The name of a run is the number of a configuration's run.
        short = [
            "/".join(parts[-max(length, 2 if file.stem == "best" else 1) :])
            for parts, file in zip(names, files, strict=True)
        ]
        if len(set(short)) == len(set(names)):
            return short
    return ["/".join(parts) for parts in names]
