"""The detection metric of a whole split, collected batch by batch and over all processes.

The states are lists of tensors of fixed width and type, which are concatenated over the processes:
the detections in the order of the images, and for every image the number of its detections. This
keeps images without detections, and an image that was added twice can be counted once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mbv2det.data.objects import Objects
from mbv2det.metrics.coco_ap import Backend, CocoAP, coco_ap
from mbv2det.metrics.scored_boxes import ScoredBoxes
from mbv2det.metrics.voc_ap import voc_ap
from mbv2det.structures import Detections


class DetectionScores(CocoAP):
    """COCO's and VOC's averages, 0..1 or None without ground truth, and the number of images."""

    VOC07: float | None
    VOC10: float | None
    images: int


class DetectionAP(Metric):
    """COCO's and VOC's average precision against the original annotation of a split.

    Every image counts once, even if it was added several times or by several processes. The order
    of the images and the number of processes do not change the result. Only images that were added
    are evaluated.

    Args:
        truth: Objects of the whole split.
        backend: Library that computes COCO's numbers; see `coco_ap`.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: list[Tensor]  # (n, 2) int64 each: index, number of rows
    rows: list[Tensor]  # (n, 6) float64 each: label, score, box

    def __init__(
        self, truth: Objects, backend: Backend = "faster_coco_eval", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.truth = truth
        self.backend = backend
        self.add_state("images", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, detections: Sequence[Detections], indices: Sequence[int]) -> None:
        """Adds the detections of some images.

        Args:
            detections: Detections of each image, on any device.
            indices: Index in the split of each image.

        Raises:
            ValueError: If an index is outside the split, or if the lengths differ.
        """
        for index in indices:
            if not 0 <= index < self.truth.num_images:
                raise ValueError(
                    f"expected image indices in 0..{self.truth.num_images - 1}, the images of the "
                    f"ground truth, but got {index}"
                )
        counts = [(i, len(of_image)) for i, of_image in zip(indices, detections, strict=True)]
        if not counts:
            return
        self.images.append(torch.tensor(counts, dtype=torch.int64, device=self.device))
        self.rows.append(torch.cat([_rows(of_image) for of_image in detections]).to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes, even of a process without images.

        torchmetrics replaces an empty list by a one-dimensional float32 tensor, which cannot be
        gathered with the others.
        """
        if not self._is_synced and not self.images:
            self.images.append(torch.empty((0, 2), dtype=torch.int64, device=self.device))
            self.rows.append(torch.empty((0, 6), dtype=torch.float64, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> DetectionScores:
        """Returns COCO's and VOC's numbers over the images that were added."""
        images, truth, detections = self.collected()
        coco, voc = coco_ap(truth, detections, self.backend), voc_ap(truth, detections)
        return DetectionScores(**coco, VOC07=voc["VOC07"], VOC10=voc["VOC10"], images=len(images))

    def collected(self) -> tuple[Int64[np.ndarray, " M"], Objects, ScoredBoxes]:
        """Returns what is evaluated.

        Returns:
            The indices of the added images, their objects, and the detections first added for each.
        """
        if len(self.images) == 0:  # a list, or a tensor of all processes
            images = np.zeros(0, np.int64)
            nothing = ScoredBoxes(images, np.zeros((0, 4)), np.zeros(0), images)
            return images, self.truth.of_images(images), nothing
        index, count = dim_zero_cat(self.images).cpu().numpy().T
        rows = dim_zero_cat(self.rows).cpu().numpy()
        images, first_row = np.unique(index, return_index=True)
        once = np.zeros(len(index), dtype=np.bool_)
        once[first_row] = True
        rows = rows[np.repeat(once, count)]
        detections = ScoredBoxes(
            image=np.repeat(index[once], count[once]),
            boxes=rows[:, 2:],
            scores=rows[:, 1],
            labels=rows[:, 0].astype(np.int64),
        )
        return images, self.truth.of_images(images), detections


def _rows(detections: Detections) -> Tensor:
    labels, scores = detections.labels[:, None].double(), detections.scores[:, None].double()
    return torch.cat([labels, scores, detections.boxes.double()], dim=1)
