"""This toolkit's detectors as models of the library sahi (slicing, its own metrics and tools)."""

from typing import Any

import numpy as np
from sahi.models.base import DetectionModel
from sahi.prediction import ObjectPrediction

from mbv2det.deploy.predictor import Predictor
from mbv2det.structures import Detections
from mbv2det.tasks.detection import DetectionTask


class SahiModel(DetectionModel):
    """A predictor as sahi's `get_prediction` and `get_sliced_prediction` take it.

    sahi hands over RGB images and gets boxes in pixels of the slice, moved to the whole image.

    Args:
        predictor: Predictor with a head for detection.
        confidence_threshold: Lowest score of a detection.
    """

    def __init__(self, predictor: Predictor, confidence_threshold: float = 0.3) -> None:
        self.label_map = predictor.info.label_maps[DetectionTask.name]
        names = {str(id_): name for name, id_ in zip(*self._classes(), strict=True)}
        super().__init__(
            model=predictor, confidence_threshold=confidence_threshold, category_mapping=names
        )

    def _classes(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return self.label_map.names, self.label_map.ids

    def set_device(self, device: str | None = None) -> None:
        """Leaves the predictor on its device."""
        self.device = device

    def set_model(self, model: Predictor, **kwargs: Any) -> None:
        """Takes the predictor."""
        self.model = model

    def perform_inference(self, image: np.ndarray) -> None:
        """Predicts one RGB image."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Predicts RGB images as one batch."""
        self._original_predictions = [prediction.detection for prediction in self.model(images)]
        self._original_shapes = [image.shape for image in images]

    def convert_original_predictions(
        self,
        shift_amount: list[Any] | None = None,
        full_shape: list[Any] | None = None,
    ) -> None:
        """Turns the detections into sahi's objects; see sahi's base class for the arguments."""
        self._create_object_prediction_list_from_original_predictions(shift_amount, full_shape)
