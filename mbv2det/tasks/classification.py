"""Classification: a class for the whole image. It comes with imported weights and only predicts."""

from collections.abc import Mapping, Sequence
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
from mbv2det.output_layer import OutputLayer
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
        """The top classes of each image with their probabilities (softmax)."""
        return _top_classes(outputs.float().softmax(dim=1))

    def result_files(self, folder: Path, min_score: float) -> ResultFiles:
        """One file of the top classes of all images."""
        return TopClassesFile(folder, self.label_map)

    def raw_tensor(self, outputs: Float[Tensor, "B K"]) -> Tensor:
        """The logits."""
        return outputs

    def output_layer(self, choice: str, size: tuple[int, int]) -> OutputLayer:
        """The last layer of an exported network: softmax."""
        return Probabilities()

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """The picture above a caption of the top classes."""
        if prediction.classification is None:
            return picture
        rows = top_classes(prediction.classification, self.label_map)
        return add_caption(picture, [f"{row['class']} {row['score']:.2f}" for row in rows])


class Probabilities(OutputLayer):
    """The probability of each class: `probabilities` (B, K)."""

    names: ClassVar[tuple[str, ...]] = ("probabilities",)

    def forward(self, outputs: Float[Tensor, "B K"]) -> tuple[Tensor, ...]:
        """Returns the probabilities."""
        return (outputs.float().softmax(dim=1),)

    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[Classification]:
        """Returns the top classes of each image."""
        return _top_classes(tensors["probabilities"])


def _top_classes(probabilities: Float[Tensor, "B K"]) -> list[Classification]:
    best = probabilities.topk(min(_TOP, probabilities.shape[1]), dim=1)
    return [Classification(*row) for row in zip(best.values, best.indices, strict=True)]


def top_classes(classification: Classification, label_map: LabelMap) -> list[dict[str, Any]]:
    """Names and probabilities of the top classes of one image, best first."""
    columns = (classification.labels.tolist(), classification.scores.tolist())
    return [
        {"class": label_map.names[label], "score": round(score, 5)}
        for label, score in zip(*columns, strict=True)
    ]


class TopClassesFile:
    """The top classes of all images by image name: `classes.json`.

    Args:
        folder: Where to write.
        label_map: Classes that are predicted.
    """

    def __init__(self, folder: Path, label_map: LabelMap) -> None:
        self.path = folder / "classes.json"
        self.label_map = label_map
        self.classes: dict[str, list[dict[str, Any]]] = {}

    def add(self, name: str, prediction: Prediction) -> None:
        """Takes the top classes of one image."""
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
