"""The detection metric of a whole split, gathered batch by batch and over all processes.

The states are lists of tensors of fixed width and type, concatenated when processes meet: what was
found in the order of the images, and for every image how many rows of that are its own. So an image
without any detection counts too, and one that came twice can be told apart and dropped.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mbv2det.metrics.coco_ap import CocoAP, coco_ap
from mbv2det.metrics.ground_truth import GroundTruth, ScoredBoxes
from mbv2det.metrics.voc_ap import voc_ap
from mbv2det.structures import Detections


class DetectionScores(CocoAP):
    """COCO's and VOC's averages, 0..1 or None without ground truth, and the images they cover."""

    VOC07: float | None
    VOC10: float | None
    images: int


class DetectionAP(Metric):
    """COCO's and VOC's average precision against the untouched annotation of a split.

    Every image counts once, however often it came and in whichever process; neither the order of
    the images nor the number of processes changes the result. Only the ground truth of images that
    came is held against the detections.

    Args:
        truth: The annotation of the whole split.
        kwargs: Of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: list[Tensor]  # (n, 2) int64 each: index, number of rows
    rows: list[Tensor]  # (n, 6) float64 each: label, score, box

    def __init__(self, truth: GroundTruth, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.truth = truth
        self.add_state("images", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, detections: Sequence[Detections], indices: Sequence[int]) -> None:
        """Takes in the detections of some images.

        Args:
            detections: One for each image, on any device.
            indices: Positions of the images in the split.

        Raises:
            ValueError: If an index is outside the split, or there are not as many as detections.
        """
        for index in indices:
            if not 0 <= index < self.truth.num_images:
                raise ValueError(
                    f"expected image indices in 0..{self.truth.num_images - 1}, the images of the "
                    f"ground truth, but got {index}"
                )
        counts = [(i, len(found)) for i, found in zip(indices, detections, strict=True)]
        if not counts:
            return
        self.images.append(torch.tensor(counts, dtype=torch.int64, device=self.device))
        self.rows.append(torch.cat([_rows(found) for found in detections]).to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes, even of one that saw no image.

        torchmetrics stands in for an empty list by a one-dimensional float32 tensor, which cannot
        be gathered with the others.
        """
        if not self._is_synced and not self.images:
            self.images.append(torch.empty((0, 2), dtype=torch.int64, device=self.device))
            self.rows.append(torch.empty((0, 6), dtype=torch.float64, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> DetectionScores:
        """COCO's and VOC's numbers over the images that came."""
        seen, found = self._each_image_once()
        truth = self.truth.of_images(seen)
        coco, voc = coco_ap(truth, found), voc_ap(truth, found)
        return DetectionScores(**coco, VOC07=voc["VOC07"], VOC10=voc["VOC10"], images=len(seen))

    def _each_image_once(self) -> tuple[Int64[np.ndarray, " M"], ScoredBoxes]:
        """The images that came, and their detections from the first time they did."""
        index, count = dim_zero_cat(self.images).cpu().numpy().T
        rows = dim_zero_cat(self.rows).cpu().numpy()
        seen, first_time = np.unique(index, return_index=True)
        once = np.zeros(len(index), dtype=np.bool_)
        once[first_time] = True
        rows = rows[np.repeat(once, count)]
        return seen, ScoredBoxes(
            image=np.repeat(index[once], count[once]),
            boxes=rows[:, 2:],
            scores=rows[:, 1],
            labels=rows[:, 0].astype(np.int64),
        )


def _rows(found: Detections) -> Tensor:
    return torch.cat(
        [found.labels[:, None].double(), found.scores[:, None].double(), found.boxes.double()],
        dim=1,
    )
