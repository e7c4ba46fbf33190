"""Annotated images as samples, and samples as batches."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from mbv2det.data.annotations import Annotations
from mbv2det.data.images import read_image
from mbv2det.errors import DataError
from mbv2det.geometry import Frame
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import IGNORE_INDEX, Batch, BoxTargets, Instances, Sample, SampleKey


class AnnotatedImages(Dataset[Sample]):
    """Reads, augments and preprocesses the images of one split.

    Args:
        annotations: Of the split.
        preprocessor: Brings every image to the network's input size.
        augment: Drawn anew for every (epoch, index), or None for evaluation.
    """

    def __init__(
        self,
        annotations: Annotations,
        preprocessor: Preprocessor,
        augment: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.annotations = annotations
        self.preprocessor = preprocessor
        self.augment = augment

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of one image, in the network's input size."""
        sample = read_sample(self.annotations, key)
        if self.augment is not None:
            sample = self.augment(sample)
        return self.preprocessor(sample)


def read_sample(annotations: Annotations, key: SampleKey) -> Sample:
    """One image with its annotation, as they are in the files.

    Raises:
        DataError: For a damaged file, or an annotation of another size than the image.
    """
    index, mask = key.index, annotations.mask(key.index)
    annotated, annotation = annotations.size(index), "the annotation"
    if annotated is None and mask is not None:
        annotated, annotation = mask.shape, f"its mask {annotations.mask_source(index)}"
    image, faults = read_image(annotations.path(index), annotated, annotation)
    size = (image.shape[0], image.shape[1])
    if mask is not None and mask.shape != size:
        raise DataError(
            f"{annotations.mask_source(index)}: expected a mask of {size[0]}x{size[1]} pixels as "
            f"{annotations.path(index)} has, got {mask.shape[0]}x{mask.shape[1]} (height x width)"
        )
    if annotations.masks is not None and mask is None:
        mask = np.full(size, IGNORE_INDEX, np.uint8)
    return Sample(key, image, Frame(size), annotations.instances(index, size), mask, faults)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks images of one size and pads their objects to the largest count, at least one."""
    images = np.stack([s.image for s in samples])
    masks = [s.mask for s in samples if s.mask is not None]
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        keys=[s.key for s in samples],
        frames=[s.frame for s in samples],
        boxes=_collate_boxes([s.instances for s in samples]),
        masks=torch.from_numpy(np.stack(masks)) if masks else None,
        faults={s.key.index: s.faults for s in samples if s.faults},
    )


def _collate_boxes(found: Sequence[Instances | None]) -> BoxTargets:
    most = max(1, *(len(instances or ()) for instances in found))
    boxes = torch.zeros(len(found), most, 4)
    labels = torch.full((len(found), most), -1, dtype=torch.int64)
    ignore = torch.zeros(len(found), most, dtype=torch.bool)
    for row, instances in enumerate(found):
        if instances is not None:
            count = len(instances)
            boxes[row, :count] = torch.from_numpy(instances.boxes)
            labels[row, :count] = torch.from_numpy(instances.labels)
            ignore[row, :count] = torch.from_numpy(instances.ignore)
    annotated = torch.tensor([instances is not None for instances in found])
    return BoxTargets(boxes, labels, ignore, annotated)
