"""Classification: a class for the whole image, with imported weights; it cannot be trained."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mbv2det.drawing import add_caption
from mbv2det.geometry import Frame, GraphFrame
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import HeadConfig
from mbv2det.output_layer import OutputLayer
from mbv2det.structures import Classification
from mbv2det.tasks.classification_files import TopClassesFile, top_classes
from mbv2det.tasks.task import Prediction, ResultFiles, Task

_TOP = 5  # classes named per image


class ClassificationTask(Task):
    """The top classes of the whole image."""

    name: ClassVar[str] = "classification"
    head_kinds: ClassVar[Sequence[type[HeadConfig]]] = (ClassifierConfig,)
    hub_pipeline: ClassVar[str] = "image-classification"
    formats: ClassVar[Mapping[str, Callable[[Path, LabelMap, float], ResultFiles]]] = {
        "json": TopClassesFile
    }

    def predict(
        self, outputs: Float[Tensor, "B K"], frames: Sequence[Frame]
    ) -> list[Classification]:
        """Returns the top classes of each image with their probabilities (softmax)."""
        return _top_classes(outputs.float().softmax(dim=1))

    def select(self, part: Classification, names: Collection[str]) -> Classification:
        """Returns the top classes with these names."""
        labels = torch.tensor(self.labels_of(names), dtype=torch.int64, device=part.labels.device)
        kept = torch.isin(part.labels, labels)
        return Classification(part.scores[kept], part.labels[kept])

    @property
    def num_rows_below(self) -> int:
        """Space for the caption of a frame."""
        return _TOP

    def raw_tensor(self, outputs: Float[Tensor, "B K"]) -> Tensor:
        """Returns the logits."""
        return outputs

    def output_layer(self, choice: str) -> OutputLayer:
        """The last layer of an exported network: softmax."""
        return Probabilities()

    def annotate(self, picture: Image.Image, prediction: Prediction) -> Image.Image:
        """Adds a caption of the top classes below a picture."""
        if prediction.classification is None:
            return picture
        rows = top_classes(prediction.classification, self.label_map)
        return add_caption(picture, [f"{row['class']} {row['score']:.2f}" for row in rows])


class Probabilities(OutputLayer):
    """The probability of each class: `probabilities` (B, K)."""

    names: ClassVar[tuple[str, ...]] = ("probabilities",)

    def forward(self, outputs: Float[Tensor, "B K"], frame: GraphFrame) -> tuple[Tensor, ...]:
        """Returns the probabilities."""
        return (outputs.float().softmax(dim=1),)

    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[Classification]:
        """Returns the top classes of each image."""
        return _top_classes(tensors["probabilities"])


def _top_classes(probabilities: Float[Tensor, "B K"]) -> list[Classification]:
    best = probabilities.topk(min(_TOP, probabilities.shape[1]), dim=1)
    return [Classification(*row) for row in zip(best.values, best.indices, strict=True)]
