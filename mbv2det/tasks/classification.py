"""Classification: a class for the whole image, with imported weights; it cannot be trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mbv2det.atomic_write import write_json
from mbv2det.drawing import add_caption
from mbv2det.geometry import Frame
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import HeadConfig
from mbv2det.structures import Classification
from mbv2det.tasks.task import Prediction, ResultFiles, Task

_TOP = 5  # classes named per image


class ClassificationTask(Task):
    """The top classes of the whole image."""

    name: ClassVar[str] = "classification"
    head_kinds: ClassVar[Sequence[type[HeadConfig]]] = (ClassifierConfig,)
    hub_pipeline: ClassVar[str] = "image-classification"

    def predict(
        self, outputs: Float[Tensor, "B K"], frames: Sequence[Frame]
    ) -> list[Classification]:
        """Returns the top classes of each image with their probabilities (softmax)."""
        best = outputs.float().softmax(dim=1).topk(min(_TOP, outputs.shape[1]), dim=1)
        return [Classification(*row) for row in zip(best.values, best.indices, strict=True)]

    def result_files(self, folder: Path, min_score: float) -> ResultFiles:
        """Returns a writer of one file with the top classes of all images."""
        return TopClassesFile(folder, self.label_map)

    def raw_tensor(self, outputs: Float[Tensor, "B K"]) -> Tensor:
        """Returns the logits."""
        return outputs

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """Adds a caption of the top classes below a picture."""
        if prediction.classification is None:
            return picture
        rows = top_classes(prediction.classification, self.label_map)
        return add_caption(picture, [f"{row['class']} {row['score']:.2f}" for row in rows])


def top_classes(classification: Classification, label_map: LabelMap) -> list[dict[str, Any]]:
    """Returns names and probabilities of the top classes of one image, best first."""
    columns = (classification.labels.tolist(), classification.scores.tolist())
    return [
        {"class": label_map.names[label], "score": round(score, 5)}
        for label, score in zip(*columns, strict=True)
    ]


class TopClassesFile:
    """Writer of `classes.json`: the top classes of all images by image name.

    Args:
        folder: Folder to write to.
        label_map: Classes that are predicted.
    """

    def __init__(self, folder: Path, label_map: LabelMap) -> None:
        self.path = folder / "classes.json"
        self.label_map = label_map
        self.classes: dict[str, list[dict[str, Any]]] = {}

    def add(self, name: str, prediction: Prediction) -> None:
        """Adds the top classes of one image."""
        if prediction.classification is not None:
            self.classes[name] = top_classes(prediction.classification, self.label_map)

    def close(self) -> list[str]:
        """Writes the file."""
        write_json(self.path, self.classes)
        lines = [
            f"{name}: " + ", ".join(f"{row['class']} {row['score']:.2f}" for row in rows)
            for name, rows in self.classes.items()
        ]
        return [*lines, f"top classes: {self.path}"]
