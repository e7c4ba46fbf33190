"""From raw outputs to the objects of each image: decode, threshold, suppress, keep the best."""

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
    """Decoding and class-wise non-maximum suppression.

    Attributes:
        slots: Meaning of the logits.
        box_coder: Meaning of the deltas.
        score_threshold: Candidates below are dropped before suppression.
        nms_iou: Of two boxes of a class overlapping by more, the lower score is dropped.
        max_detections: Kept of an image, and of each class.
        candidates_per_class: Best scores of each class that enter suppression.
    """

    slots: ClassSlots
    box_coder: BoxCoder = BoxCoder()
    score_threshold: float = 0.01
    nms_iou: float = 0.6
    max_detections: int = 100
    candidates_per_class: int = 400

    def __call__(self, outputs: SSDOutputs, frames: Sequence[Frame]) -> list[Detections]:
        """Detections of each image, in the frame of its original file."""
        scores = self.slots.scores(outputs.logits)
        boxes = self.box_coder.decode(outputs.deltas.float(), outputs.anchors)
        return [
            self._suppress(frame.boxes_to_original(image_boxes), image_scores)
            for frame, image_boxes, image_scores in zip(frames, boxes, scores, strict=True)
        ]

    def _suppress(self, boxes: Float[Tensor, "A 4"], scores: Float[Tensor, "A K"]) -> Detections:
        best, anchor = scores.topk(min(self.candidates_per_class, len(scores)), dim=0)
        row, label = (best >= self.score_threshold).nonzero(as_tuple=True)
        candidates = Detections(boxes[anchor[row, label]], best[row, label], label)
        sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
        candidates = candidates[(sides > 0).all(dim=1)]  # decoded wholly outside the image
        kept = batched_nms(candidates.boxes, candidates.scores, candidates.labels, self.nms_iou)
        return candidates[kept[: self.max_detections]]
