"""The analysis of all tasks of a model, whatever a page or a comparison makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbv2det.data.annotations import Annotations
from mbv2det.report.detection_analysis import DetectionAnalysis, Progress, analyse_detections
from mbv2det.report.model import MeasuredModel
from mbv2det.report.record import DetectionRecord, SegmentationRecord
from mbv2det.report.segmentation_analysis import SegmentationAnalysis, analyse_masks

Analysis = DetectionAnalysis | SegmentationAnalysis


@dataclass(frozen=True)
class AnalysedModel:
    """A measured model with its analysis.

    Attributes:
        name: Short name, unique among the models.
        model: The model.
        detection: Analysis of its detections; None if they were not measured.
        segmentation: Analysis of its masks; None if they were not measured.
    """

    name: str
    model: MeasuredModel
    detection: DetectionAnalysis | None
    segmentation: SegmentationAnalysis | None

    @property
    def split(self) -> Annotations:
        """The measured split in the labels of the model."""
        return self.model.record.split

    @property
    def analyses(self) -> Mapping[str, Analysis]:
        """The analyses by task."""
        both = {"detection": self.detection, "segmentation": self.segmentation}
        return {name: analysis for name, analysis in both.items() if analysis is not None}

    def scores(self, task: str) -> Mapping[str, Any]:
        """The section of a task in metrics.json."""
        return self.model.document[task]

    @property
    def mask_names(self) -> Sequence[str]:
        """Names of the labels of the masks."""
        return self.model.info.label_maps["segmentation"].names


def analyse(name: str, model: MeasuredModel, progress: Progress) -> AnalysedModel:
    """Analyses a measured model.

    Args:
        name: Short name of the model.
        model: The model.
        progress: Shows a progress bar, such as `rich.progress.track`.
    """
    detection = segmentation = None
    for record in model.record.tasks.values():
        if isinstance(record, DetectionRecord):
            images, truth, detections = record.metric.collected()
            if len(images):
                detection = analyse_detections(images, truth, detections, progress=progress)
        elif isinstance(record, SegmentationRecord) and record.images:
            segmentation = analyse_masks(
                np.array(record.images), np.stack(record.confusion), progress=progress
            )
    return AnalysedModel(name, model, detection, segmentation)
