"""Detectors of this toolkit as models of the library sahi, an extra: slicing and its tools."""

from typing import Any

import numpy as np
from sahi.models.base import DetectionModel
from sahi.prediction import ObjectPrediction
from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list

from mbv2det.deploy.image_predictor import ImagePredictor
from mbv2det.errors import ConfigError
from mbv2det.structures import Detections
from mbv2det.tasks.detection import DetectionTask


class SahiModel(DetectionModel):
    """A predictor as sahi's `get_prediction` and `get_sliced_prediction` take it.

    sahi hands over RGB images and moves the boxes of a slice to the whole image. Its category ids
    are those of the data set.

    Args:
        predictor: ImagePredictor with a head for detection.
        confidence_threshold: Lowest score of a detection.

    Raises:
        ConfigError: If the predictor detects nothing.
    """

    def __init__(self, predictor: ImagePredictor, confidence_threshold: float = 0.3) -> None:
        if DetectionTask.name not in predictor.info.label_maps:
            raise ConfigError("predictor: expected a head for detection, got none")
        self.label_map = predictor.info.label_maps[DetectionTask.name]
        ids = map(str, self.label_map.ids)
        super().__init__(
            model=predictor,
            confidence_threshold=confidence_threshold,
            category_mapping=dict(zip(ids, self.label_map.names, strict=True)),
        )

    def set_device(self, device: str | None = None) -> None:
        """Does nothing: the predictor stays on its device."""

    def set_model(self, model: ImagePredictor, **kwargs: Any) -> None:
        """Takes the predictor."""
        self.model = model

    def perform_inference(self, image: np.ndarray) -> None:
        """Predicts one RGB image."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Predicts RGB images as one batch."""
        predictions = self.model([np.ascontiguousarray(image) for image in images])
        detections = [prediction.detection for prediction in predictions]
        self._original_predictions = [part for part in detections if part is not None]

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: list[Any] | None = None,
        full_shape_list: list[Any] | None = None,
    ) -> None:
        count = len(self._original_predictions)
        shifts = fix_shift_amount_list(shift_amount_list or [[0, 0]] * count)
        shapes = fix_full_shape_list(full_shape_list) or [None] * count
        rows = zip(self._original_predictions, shifts, shapes, strict=True)
        self._object_prediction_list_per_image = [self._objects(*row) for row in rows]

    def _objects(
        self, detections: Detections, shift: list[int], full_shape: list[int] | None
    ) -> list[ObjectPrediction]:
        shown = detections.at_least(self.confidence_threshold)
        columns = (shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist())
        return [
            ObjectPrediction(
                bbox=box,
                category_id=self.label_map.ids[label],
                category_name=self.label_map.names[label],
                score=score,
                shift_amount=shift,
                full_shape=full_shape,
            )
            for box, score, label in zip(*columns, strict=True)
        ]
