"""Result files of classification: the top classes of every image."""

from pathlib import Path
from typing import Any

from mbv2det.labels import LabelMap
from mbv2det.structures import Classification
from mbv2det.tasks.result_files import ImageInfo, json_list, json_text
from mbv2det.tasks.task import Prediction

_PRINTED = 10  # images whose classes are printed at the end


class TopClassesFile:
    """The top classes of all images, a record for each: `classes.json`.

    A record has `image_id`, `file_name`, in a video `frame`, and `classes`, a list of `class` and
    `score`, best first.

    Args:
        folder: Where to write.
        label_map: Classes that are predicted.
        min_score: Unused: the top classes are written whatever their probability.
    """

    def __init__(self, folder: Path, label_map: LabelMap, min_score: float) -> None:
        self.file = json_list(folder / "classes.json")
        self.label_map = label_map
        self.lines: list[str] = []

    def add(self, image: ImageInfo, prediction: Prediction) -> None:
        """Writes the top classes of one image."""
        if prediction.classification is None:
            return
        rows = top_classes(prediction.classification, self.label_map)
        self.file.add([json_text({**image.record(), "classes": rows})])
        if len(self.lines) < _PRINTED:
            shown = ", ".join(f"{row['class']} {row['score']:.2f}" for row in rows)
            self.lines.append(f"{image.name}: {shown}")

    def close(self) -> list[str]:
        """Closes the file; the lines name the classes of the first images."""
        self.file.close()
        return [*self.lines, f"top classes: {self.file.path}"]


def top_classes(classification: Classification, label_map: LabelMap) -> list[dict[str, Any]]:
    """Names and probabilities of the top classes of one image, best first."""
    columns = (classification.labels.tolist(), classification.scores.tolist())
    return [
        {"class": label_map.names[label], "score": round(score, 5)}
        for label, score in zip(*columns, strict=True)
    ]
