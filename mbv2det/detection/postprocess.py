"""Postprocess: decode, threshold, non-maximum suppression, keep the best detections.

Suppression of a box depends on boxes of higher score alone. So the best candidates of an image,
whatever their classes, are suppressed first, and if they leave as many detections as are wanted,
the rest need not be looked at: it could not change them. With trained weights that is nearly always
so.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms

from mbv2det.detection.box_coder import BoxCoder
from mbv2det.detection.box_distribution import distances_to_boxes, expected_distances
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.outputs import PointOutputs, SSDOutputs
from mbv2det.geometry import Frame
from mbv2det.structures import Detections


@dataclass(frozen=True)
class BoxPostprocess(ABC):
    """Turns raw outputs into detections, with non-maximum suppression (NMS) for each class.

    A subclass decodes the raw outputs of its head.

    Attributes:
        slots: Layout of the class logits.
        score_threshold: Lowest score of a detection, 0..1.
        nms_iou: Intersection over union above which the lower-scoring of two boxes of a class is
            dropped.
        max_detections: Maximum number of detections per image, whatever their classes.
        candidates_per_class: Number of highest-scoring boxes of each class that enter NMS.
    """

    slots: ClassSlots
    score_threshold: float = 0.01
    nms_iou: float = 0.6
    max_detections: int = 100
    candidates_per_class: int = 400

    def __call__(self, outputs: Any, frames: Sequence[Frame]) -> list[Detections]:
        """Returns the detections of each image, in pixels of its original file.

        Args:
            outputs: Raw outputs of the head for a batch.
            frames: Frame of each image of the batch.

        Raises:
            ValueError: If there are not as many frames as images.
        """
        return self.select(*self.decode(outputs), frames)

    @abstractmethod
    def decode(self, outputs: Any) -> tuple[Float[Tensor, "B A 4"], Float[Tensor, "B A K"]]:
        """Returns the box of every anchor or point and its score for each class, in float32.

        This is tensor code that exported networks contain too.

        Args:
            outputs: Raw outputs of the head for a batch.

        Returns:
            xyxy boxes in pixels of the network input, not clipped, and scores 0..1.
        """

    def select(
        self,
        boxes: Float[Tensor, "B A 4"],
        scores: Float[Tensor, "B A K"],
        frames: Sequence[Frame],
    ) -> list[Detections]:
        """Returns the detections of each image from decoded boxes.

        Args:
            boxes: Boxes of `decode`.
            scores: Scores of `decode`.
            frames: Frame of each image of the batch.

        Raises:
            ValueError: If there are not as many frames as images.
        """
        return [
            self._detections(image_boxes, image_scores, frame)
            for image_boxes, image_scores, frame in zip(boxes, scores, frames, strict=True)
        ]

    def _detections(
        self, boxes: Float[Tensor, "A 4"], scores: Float[Tensor, "A K"], frame: Frame
    ) -> Detections:
        """Applies the threshold, NMS and the limit to one image."""
        anchors, labels = (scores >= self.score_threshold).nonzero(as_tuple=True)
        # Among this many of all classes, no class can exceed its number of candidates.
        num_best = min(self.candidates_per_class, len(anchors))
        best = scores[anchors, labels].topk(num_best).indices
        detections = self._suppressed(boxes, scores, frame, (anchors[best], labels[best]))
        if len(detections) == self.max_detections or num_best == len(anchors):
            return detections
        return self._suppressed(boxes, scores, frame, self._best_of_each_class(scores))

    def _best_of_each_class(
        self, scores: Float[Tensor, "A K"]
    ) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Returns the anchors and labels of the candidates of every class."""
        top_scores, anchors = scores.topk(min(self.candidates_per_class, len(scores)), dim=0)
        rank, labels = (top_scores >= self.score_threshold).nonzero(as_tuple=True)
        return anchors[rank, labels], labels

    def _suppressed(
        self,
        boxes: Float[Tensor, "A 4"],
        scores: Float[Tensor, "A K"],
        frame: Frame,
        candidates: tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]],
    ) -> Detections:
        """Returns the best detections that NMS leaves of candidates, given by anchor and label."""
        anchors, labels = candidates
        detections = Detections(
            frame.boxes_to_original(boxes[anchors]), scores[anchors, labels], labels
        )
        sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
        # A box that was decoded wholly outside the image has no area after clipping.
        detections = detections[(sides > 0).all(dim=1)]
        kept = batched_nms(detections.boxes, detections.scores, detections.labels, self.nms_iou)
        return detections[kept[: self.max_detections]]


@dataclass(frozen=True)
class SSDPostprocess(BoxPostprocess):
    """Decodes anchors and deltas.

    Attributes:
        box_coder: Decoder of the box deltas.
    """

    box_coder: BoxCoder = BoxCoder()

    def decode(self, outputs: SSDOutputs) -> tuple[Float[Tensor, "B A 4"], Float[Tensor, "B A K"]]:
        """Returns the box of every anchor and its score for each class; see `BoxPostprocess`."""
        boxes = self.box_coder.decode(outputs.deltas.float(), outputs.anchors)
        return boxes, self.slots.scores(outputs.logits)


@dataclass(frozen=True)
class PointPostprocess(BoxPostprocess):
    """Decodes points and the distributions of the distances to the sides of their boxes."""

    def decode(
        self, outputs: PointOutputs
    ) -> tuple[Float[Tensor, "B P 4"], Float[Tensor, "B P K"]]:
        """Returns the box of every point and its score for each class; see `BoxPostprocess`."""
        distances = expected_distances(outputs.sides.float())
        boxes = distances_to_boxes(distances, outputs.points)
        return boxes, self.slots.scores(outputs.logits)
