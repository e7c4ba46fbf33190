"""The detector's last layer in an exported network: decoded boxes, or final detections."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mbv2det.detection.nms_mask import NMS_MASK, nms_mask
from mbv2det.detection.postprocess import BoxPostprocess
from mbv2det.geometry import Frame, GraphFrame, pairwise_iou
from mbv2det.output_layer import OutputLayer
from mbv2det.structures import Detections


class DecodedBoxes(OutputLayer):
    """Every anchor's or point's box and class scores; the threshold and NMS remain to be done.

    - `boxes` (B, A, 4): xyxy in pixels of the images, not clipped.
    - `scores` (B, A, K): score of each class, 0..1, without background.

    Args:
        postprocess: Decodes raw outputs, and suppresses boxes when the tensors are read.
    """

    names: ClassVar[tuple[str, ...]] = ("boxes", "scores")

    def __init__(self, postprocess: BoxPostprocess) -> None:
        super().__init__()
        self.postprocess = postprocess

    def forward(self, outputs: Any, frame: GraphFrame) -> tuple[Tensor, ...]:
        """Returns boxes and scores."""
        boxes, scores = self.postprocess.decode(outputs)
        return frame.boxes_to_original(boxes), scores

    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[Detections]:
        """Applies the threshold and NMS, as the network in PyTorch does."""
        return self.postprocess.select(tensors["boxes"], tensors["scores"], frames)


class PaddedDetections(OutputLayer):
    """The final detections of each image, best first, padded to a fixed number M.

    - `boxes` (B, M, 4): xyxy in pixels of the images, clipped to them; zeros for padding.
    - `scores` (B, M): 0..1; 0 for padding.
    - `labels` (B, M): class 0..K-1 as int64; -1 for padding.
    - `count` (B): number of detections as int64, at most M.

    Two details differ from PyTorch's postprocessing:

    - In a graph that does not resize, boxes are clipped to the network input before NMS. PyTorch
      clips them to the image in it, which is smaller where the rule of the resize is `fit`: there a
      box that reaches into the padding may be suppressed by one and not by the other.
    - Every box above the threshold enters NMS. PyTorch's limit, `candidates_per_class`, would need
      a selection that takes OpenVINO as long as the network, and changes only what stands behind
      that many better boxes of its class.

    Args:
        postprocess: Decodes raw outputs; its thresholds and limits hold.
    """

    names: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels", "count")
    operators: ClassVar[tuple[str, ...]] = (NMS_MASK,)

    def __init__(self, postprocess: BoxPostprocess) -> None:
        super().__init__()
        self.postprocess = postprocess

    def forward(self, outputs: Any, frame: GraphFrame) -> tuple[Tensor, ...]:
        """Returns boxes, scores, labels and count."""
        boxes, scores = self.postprocess.decode(outputs)
        boxes = frame.clipped(frame.boxes_to_original(boxes))
        scores = self._candidates(boxes, scores)
        kept = nms_mask(boxes, scores, self.postprocess.nms_iou)
        scores = torch.where(kept, scores, 0.0).flatten(1)
        scores, best = scores.topk(min(self.postprocess.max_detections, scores.shape[1]), dim=1)
        valid = scores > 0
        num_anchors = boxes.shape[1]
        boxes = boxes.gather(1, (best % num_anchors)[..., None].expand(-1, -1, 4))
        labels = best.div(num_anchors, rounding_mode="floor")
        return (
            torch.where(valid[..., None], boxes, 0.0),
            scores,
            torch.where(valid, labels, -1),
            valid.sum(dim=1),
        )

    def _candidates(
        self, boxes: Float[Tensor, "B A 4"], scores: Float[Tensor, "B A K"]
    ) -> Float[Tensor, "B K A"]:
        """Returns the scores of the boxes that enter NMS, and 0 for the others.

        Others are those below the threshold, and those without area inside the image.
        """
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        valid = has_area[..., None] & (scores >= self.postprocess.score_threshold)
        return torch.where(valid, scores, 0.0).transpose(1, 2)

    def read(self, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> list[Detections]:
        """Maps the detections to the original images."""
        results = []
        for row, frame in enumerate(frames):
            count = int(tensors["count"][row])
            detections = Detections(
                frame.boxes_to_original(tensors["boxes"][row, :count]),
                tensors["scores"][row, :count],
                tensors["labels"][row, :count].long(),
            )
            sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
            results.append(detections[(sides > 0).all(dim=1)])  # none is left of one in the padding
        return results

    def differences(
        self, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Returns the largest differences of boxes and scores, and the number without a partner.

        Equal scores may stand in any order, so every detection is compared with the one of its
        class that it overlaps most. Without a partner are those that overlap none by 0.9.
        """
        largest = {"boxes": 0.0, "scores": 0.0, "without partner": 0.0}
        for row, count in enumerate(expected["count"].tolist()):
            partner, overlap = _partners(_rows(expected, row), _rows(got, row))
            paired = overlap >= _SAME_OBJECT
            largest["without partner"] += int((~paired).sum())
            for name in ("boxes", "scores"):
                ours = expected[name][row, :count][paired].double()
                theirs = got[name][row][partner[paired]].double()
                if len(ours):
                    largest[name] = max(largest[name], (ours - theirs).abs().max().item())
        return largest


_SAME_OBJECT = 0.9  # IoU of two computations of one box, many times the error of float16


def _rows(
    tensors: Mapping[str, Tensor], row: int
) -> tuple[Float[Tensor, "N 4"], Int64[Tensor, " N"]]:
    count = int(tensors["count"][row])
    return tensors["boxes"][row, :count], tensors["labels"][row, :count].long()


def _partners(
    first: tuple[Float[Tensor, "N 4"], Int64[Tensor, " N"]],
    second: tuple[Float[Tensor, "M 4"], Int64[Tensor, " M"]],
) -> tuple[Int64[Tensor, " N"], Float[Tensor, " N"]]:
    """Returns the box of `second` that each of `first` overlaps most within its class."""
    (boxes, labels), (others, other_labels) = first, second
    if not len(others):
        return torch.zeros(len(boxes), dtype=torch.int64), boxes.new_zeros(len(boxes))
    iou = pairwise_iou(boxes, others) * (labels[:, None] == other_labels)
    overlap, partner = iou.max(dim=1)
    return partner, overlap


def box_output_layer(choice: str, postprocess: BoxPostprocess) -> OutputLayer:
    """Returns the last layer of an exported network: `inside` for NMS inside, else decoded boxes.

    Args:
        choice: `inside` or `none`.
        postprocess: Postprocessing of the method.
    """
    return PaddedDetections(postprocess) if choice == "inside" else DecodedBoxes(postprocess)
