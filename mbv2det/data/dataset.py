"""Annotated images as samples, and samples as batches."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from mbv2det.data.annotations import Annotations
from mbv2det.data.images import read_image
from mbv2det.geometry import Frame
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Batch, BoxTargets, Sample, SampleKey


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
        path = self.annotations.path(key.index)
        image, faults = read_image(path, self.annotations.size(key.index))
        size = (image.shape[0], image.shape[1])
        instances = self.annotations.instances(key.index, size)
        sample = Sample(key, image, instances, Frame(size), faults)
        if self.augment is not None:
            sample = self.augment(sample)
        return self.preprocessor(sample)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks images of one size and pads their objects to the largest count, at least one."""
    most = max(1, *(len(s.instances) for s in samples))
    boxes = torch.zeros(len(samples), most, 4)
    labels = torch.full((len(samples), most), -1, dtype=torch.int64)
    ignore = torch.zeros(len(samples), most, dtype=torch.bool)
    for row, sample in enumerate(samples):
        count = len(sample.instances)
        boxes[row, :count] = torch.from_numpy(sample.instances.boxes)
        labels[row, :count] = torch.from_numpy(sample.instances.labels)
        ignore[row, :count] = torch.from_numpy(sample.instances.ignore)
    images = np.stack([s.image for s in samples])
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        keys=[s.key for s in samples],
        frames=[s.frame for s in samples],
        boxes=BoxTargets(boxes, labels, ignore),
        faults={s.key.index: s.faults for s in samples if s.faults},
    )
