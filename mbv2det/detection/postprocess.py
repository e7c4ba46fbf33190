"""SSD postprocess: decode, threshold, non-maximum suppression, keep the best detections."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torchvision.ops import batched_nms

from mbv2det.detection.box_coder import BoxCoder
from mbv2det.detection.class_slots import ClassSlots
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.geometry import Frame
from mbv2det.structures import Detections


@dataclass(frozen=True)
class SSDPostprocess:
    """Turns raw outputs into detections, with non-maximum suppression (NMS) for each class.

    Attributes:
        slots: Layout of the class logits.
        box_coder: Decoder of the box deltas.
        score_threshold: Lowest score of a detection, 0..1.
        nms_iou: Intersection over union above which the lower-scoring of two boxes of a class is
            dropped.
        max_detections: Maximum number of detections per image, whatever their classes.
        candidates_per_class: Number of highest-scoring boxes of each class that enter NMS.
    """

    slots: ClassSlots
    box_coder: BoxCoder = BoxCoder()
    score_threshold: float = 0.01
    nms_iou: float = 0.6
    max_detections: int = 100
    candidates_per_class: int = 400

    def __call__(self, outputs: SSDOutputs, frames: Sequence[Frame]) -> list[Detections]:
        """Returns the detections of each image, in pixels of its original file.

        Args:
            outputs: Raw outputs of the SSD head for a batch.
            frames: Frame of each image of the batch.

        Raises:
            ValueError: If there are not as many frames as images.
        """
        return self.select(*self.decode(outputs), frames)

    def decode(self, outputs: SSDOutputs) -> tuple[Float[Tensor, "B A 4"], Float[Tensor, "B A K"]]:
        """Returns the box of every anchor and its score for each class, in float32.

        This is tensor code that exported networks contain too.

        Returns:
            xyxy boxes in pixels of the network input, not clipped, and scores without background.
        """
        boxes = self.box_coder.decode(outputs.deltas.float(), outputs.anchors)
        return boxes, self.slots.scores(outputs.logits)

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
            self._detections(frame.boxes_to_original(image_boxes), image_scores)
            for frame, image_boxes, image_scores in zip(frames, boxes, scores, strict=True)
        ]

    def _detections(self, boxes: Float[Tensor, "A 4"], scores: Float[Tensor, "A K"]) -> Detections:
        """Applies the threshold, NMS and the limit to one image."""
        top_scores, anchors = scores.topk(min(self.candidates_per_class, len(scores)), dim=0)
        rank, label = (top_scores >= self.score_threshold).nonzero(as_tuple=True)
        candidates = Detections(boxes[anchors[rank, label]], top_scores[rank, label], label)
        sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
        # A box that was decoded wholly outside the image has no area after clipping.
        candidates = candidates[(sides > 0).all(dim=1)]
        kept = batched_nms(candidates.boxes, candidates.scores, candidates.labels, self.nms_iou)
        return candidates[kept[: self.max_detections]]
