"""The typed objects that travel left to right through the toolkit.

    data set --Sample--> augment --Sample--> Preprocessor --Sample--> collate --Batch--> model
    model --raw outputs--> { loss --LossTerms--> | postprocess --> metrics, files }
                                                   (Detections, SegmentationMap)

Shape letters of all tensor annotations in the package: `B` images of a batch, `C` channels, `H W`
network input, `h w` feature map, `A` anchors, `P` points, `N` boxes of an image (in a batch, of the
image with the most boxes), `K` classes without background, `L` labels of a mask, background
included. Sizes are always (height, width). Boxes are (x_min, y_min, x_max, y_max) in pixels with
continuous coordinates: pixel column i covers [i, i + 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from mbv2det.extras import require
from mbv2det.geometry import Frame
from mbv2det.labels import BACKGROUND, LabelMap

if TYPE_CHECKING:
    import supervision

# Label of the mask pixels that are left out of training and metrics. Files of a data set may have
# another value for them.
IGNORE_INDEX = 255


@dataclass(frozen=True)
class Instances:
    """The annotated objects of one image, as numpy arrays of equal length.

    Attributes:
        boxes: xyxy boxes in pixels of the image.
        labels: Class of each object, 0..K-1.
        ignore: True for objects that metrics neither require nor count as errors: COCO's crowds and
            VOC's difficult objects.
    """

    boxes: Float[np.ndarray, "N 4"]
    labels: Int64[np.ndarray, " N"]
    ignore: Bool[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Shaped[np.ndarray, " M"]) -> "Instances":
        return Instances(self.boxes[rows], self.labels[rows], self.ignore[rows])


NO_INSTANCES = Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))


@dataclass(frozen=True)
class SampleKey:
    """The request of a sampler for one image.

    Attributes:
        epoch: Epoch; it selects the random draws of the augmentation.
        index: Index of the image in the data set.
        counted: False for repeated images, which give every process the same number of batches and
            are left out of metrics and validation losses.
        repeat: How often the image has been shown before in this epoch; it selects the random draws
            of the augmentation, too.
    """

    epoch: int
    index: int
    counted: bool = True
    repeat: int = 0


@dataclass(frozen=True)
class Sample:
    """One image with its annotation, before collation.

    Attributes:
        key: Request of the sampler.
        image: RGB pixels.
        frame: Position of the pixels of `image` in the original file.
        instances: Objects in pixels of `image`; None if not annotated, empty if there are none.
        mask: Label of every pixel of `image`, or `IGNORE_INDEX`; None in a data set without masks.
        faults: Faults of the file that were worked around, one phrase each.
        original_mask: Mask in the frame of the original file, for metrics; None in training and for
            images without a mask.
        left_out: Images that could not be used, and that this one stands in for: the reason by
            index in the split.
    """

    key: SampleKey
    image: UInt8[np.ndarray, "H W 3"]
    frame: Frame
    instances: Instances | None = None
    mask: UInt8[np.ndarray, "H W"] | None = None
    faults: tuple[str, ...] = ()
    original_mask: UInt8[np.ndarray, "_ _"] | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)


@dataclass
class BoxTargets:
    """Objects of a batch, padded to the largest count of any image.

    Attributes:
        boxes: xyxy boxes in pixels of the network input; zeros for padding.
        labels: Class of each object, 0..K-1; -1 for padding.
        ignore: True for COCO's crowds and VOC's difficult objects; False for padding.
        annotated: False for images whose objects are not annotated; they do not contribute to the
            detection loss, not even as background.
    """

    boxes: Float[Tensor, "B N 4"]
    labels: Int64[Tensor, "B N"]
    ignore: Bool[Tensor, "B N"]
    annotated: Bool[Tensor, " B"]

    @property
    def valid(self) -> Bool[Tensor, "B N"]:
        """True for objects, False for padding."""
        return self.labels >= 0

    def __getitem__(self, images: Tensor) -> "BoxTargets":
        return BoxTargets(
            self.boxes[images], self.labels[images], self.ignore[images], self.annotated[images]
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "BoxTargets":
        """Returns a copy with every tensor on `device`."""
        return BoxTargets(
            self.boxes.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.ignore.to(device, non_blocking=non_blocking),
            self.annotated.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "BoxTargets":
        """Returns a copy with every tensor in page-locked memory."""
        return BoxTargets(
            self.boxes.pin_memory(),
            self.labels.pin_memory(),
            self.ignore.pin_memory(),
            self.annotated.pin_memory(),
        )


@dataclass
class Batch:
    """Images of one size with their targets.

    Images stay uint8 until the model's first layer normalises them, so that only a quarter of the
    bytes of float32 is copied to the device and no caller can forget the mean. Lightning and the
    data loader call `to` and `pin_memory`.

    Attributes:
        images: RGB pixels.
        keys: Request of the sampler for each image.
        frames: Position of each image in its original file.
        boxes: Objects of each image.
        masks: Label of every pixel, or `IGNORE_INDEX`, which fills the mask of an image without
            one; None in a data set without masks.
        original_masks: Mask of each image in the frame of its original file, for metrics; None in
            training and for images without a mask. They stay on the host.
        faults: Faults of damaged files that were worked around, by index of the image in the split.
        left_out: Images that could not be used, with the reason, by index in the split.
    """

    images: UInt8[Tensor, "B 3 H W"]
    keys: list[SampleKey]
    frames: list[Frame]
    boxes: BoxTargets
    masks: UInt8[Tensor, "B H W"] | None = None
    original_masks: list[UInt8[np.ndarray, "_ _"] | None] = field(default_factory=list)
    faults: dict[int, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def counted(self) -> "Batch":
        """Returns the batch without images that the sampler repeated."""
        kept = [i for i, key in enumerate(self.keys) if key.counted]
        if len(kept) == len(self):
            return self
        rows = torch.tensor(kept, dtype=torch.int64, device=self.images.device)
        return replace(
            self,
            images=self.images[rows],
            keys=[self.keys[i] for i in kept],
            frames=[self.frames[i] for i in kept],
            boxes=self.boxes[rows],
            masks=None if self.masks is None else self.masks[rows],
            original_masks=[self.original_masks[i] for i in kept],
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Returns a copy with every tensor on `device`."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            boxes=self.boxes.to(device, non_blocking=non_blocking),
            masks=None if self.masks is None else self.masks.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """Returns a copy with every tensor in page-locked memory."""
        return replace(
            self,
            images=self.images.pin_memory(),
            boxes=self.boxes.pin_memory(),
            masks=None if self.masks is None else self.masks.pin_memory(),
        )


@dataclass(frozen=True)
class Detections:
    """The detected objects of one image, best score first.

    Attributes:
        boxes: xyxy boxes in pixels of the original image file.
        scores: Score of each object, 0..1.
        labels: Class of each object, 0..K-1.
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, " N"]
    labels: Int64[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Tensor) -> "Detections":
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows])

    def at_least(self, min_score: float) -> "Detections":
        """Returns the detections with at least this score."""
        return self[self.scores >= min_score]

    def to_supervision(self, label_map: LabelMap) -> "supervision.Detections":
        """Returns the detections for the library supervision, with trackers, zones and drawing.

        Its `class_id` is the label, and its `data["class_name"]` the name of the class.

        Args:
            label_map: Classes of the detections.

        Raises:
            ConfigError: If supervision is not installed.
        """
        labels = self.labels.cpu().numpy()
        return require("supervision", "supervision", "to_supervision").Detections(
            xyxy=self.boxes.float().cpu().numpy(),
            confidence=self.scores.float().cpu().numpy(),
            class_id=labels,
            data={"class_name": np.array(label_map.names)[labels]},
        )


@dataclass(frozen=True)
class Classification:
    """The top classes of one image, most probable first.

    Attributes:
        scores: Probability of each class.
        labels: The classes, 0..K-1.
    """

    scores: Float[Tensor, " k"]
    labels: Int64[Tensor, " k"]


@dataclass(frozen=True)
class SegmentationMap:
    """The predicted label of every pixel of one image.

    Attributes:
        labels: Labels 0..L-1, in the frame of the original image file.
    """

    labels: UInt8[Tensor, "H W"]

    def to_supervision(self, label_map: LabelMap) -> "supervision.Detections":
        """Returns the map for the library supervision: one mask for each class in the image.

        Background and `IGNORE_INDEX` are left out. Each mask has the box around it; `class_id` and
        `data["class_name"]` are as those of detections.

        Args:
            label_map: Labels of the pixels.

        Raises:
            ConfigError: If supervision is not installed.
        """
        library = require("supervision", "supervision", "to_supervision")
        labels = self.labels.cpu().numpy()
        background = label_map.label_of_name.get(BACKGROUND)
        counts = np.bincount(labels.ravel(), minlength=256)[: len(label_map)]
        present = np.array([k for k in counts.nonzero()[0] if k != background], np.int64)
        masks = labels == present[:, None, None]
        return library.Detections(
            xyxy=library.mask_to_xyxy(masks, "exclusive").astype(np.float32),
            mask=masks,
            class_id=present,
            data={"class_name": np.array(label_map.names)[present]},
        )


@dataclass(frozen=True)
class LossTerms:
    """The named loss terms of one task for one batch, as sums that can be added over batches.

    Attributes:
        sums: Sum of each term over the batch.
        count: Number of items in each sum: matched anchors for SSD, the sum of the qualities of the
            positive points for dense points, annotated pixels for segmentation.
    """

    sums: Mapping[str, Float[Tensor, ""]]
    count: Float[Tensor, ""]

    def means(
        self, count: Float[Tensor, ""] | None = None, min_count: float = 1.0
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns each term divided by a count.

        Distributed training averages the gradients of the processes. Divided by the mean count of
        the processes, the terms give the gradients of one process with the whole batch; `min_count`
        is then 1 over the number of processes.

        Args:
            count: Divisor; by default the terms' own count.
            min_count: Smallest divisor, which replaces a smaller count such as 0.
        """
        divisor = (self.count if count is None else count).clamp(min=min_count)
        return {name: value / divisor for name, value in self.sums.items()}

    def total(
        self, count: Float[Tensor, ""] | None = None, min_count: float = 1.0
    ) -> Float[Tensor, ""]:
        """Returns the sum of the means, which training minimises; arguments as for `means`."""
        return torch.stack(list(self.means(count, min_count).values())).sum()
