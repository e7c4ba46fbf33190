"""Annotated images as samples, and samples as batches."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from mbv2det.data.annotations import Annotations
from mbv2det.data.images import Reduction, read_reduced, unreduced
from mbv2det.errors import DataError
from mbv2det.geometry import Frame
from mbv2det.preprocess import reduce_boxes, reduce_mask
from mbv2det.structures import IGNORE_INDEX, Batch, BoxTargets, Instances, Sample, SampleKey


class AnnotatedImages(Dataset[Sample]):
    """The images of one split, read, augmented and preprocessed on access.

    Args:
        annotations: Annotation of the split.
        preprocessor: Resizes every image to the network's input size.
        augment: Random augmentation of a sample, for training. None for evaluation, where every
            sample keeps its original mask.
        mix: Function that mixes a training sample with others of the split, which it reads by the
            second argument; None for none.
        reduction: By what factor an image may be reduced while it is decoded.
        on_error: What happens with an image that cannot be used: stop with an error, or skip: the
            next usable image of the split stands in for it, and is not counted in metrics.
    """

    def __init__(
        self,
        annotations: Annotations,
        preprocessor: Callable[[Sample], Sample],
        augment: Callable[[Sample], Sample] | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        mix: Callable[[Sample, Callable[[SampleKey], Sample]], Sample] | None = None,
        reduction: Reduction = unreduced,
    ) -> None:
        self.annotations = annotations
        self.reduction = reduction
        self.mix = mix
        self.preprocessor = preprocessor
        self.augment = augment
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Returns the sample of one image, in the network's input size."""
        sample = self._read(key)
        if self.augment is not None:
            # Training does not use the original mask, which may be large.
            sample = replace(sample, original_mask=None)
            if self.mix is not None:
                sample = self.mix(sample, self._read)
            sample = self.augment(sample)
        return self.preprocessor(sample)

    def _read(self, key: SampleKey) -> Sample:
        if self.on_error == "skip":
            return read_usable_sample(self.annotations, key, self.reduction)
        return read_sample(self.annotations, key, self.reduction)


def read_sample(
    annotations: Annotations, key: SampleKey, reduction: Reduction = unreduced
) -> Sample:
    """Reads one image with its annotation, in the frame of the original file.

    Args:
        annotations: Annotation of the split.
        key: Request for the image.
        reduction: By what factor an image of a size may be reduced; boxes and mask are reduced with
            it, and the frame says by how much.

    Raises:
        DataError: If a file is damaged, or if image and annotation differ in size.
    """
    index, original_mask = key.index, annotations.mask(key.index)
    annotated_size, source = annotations.size(index), "the annotation"
    if annotated_size is None and original_mask is not None:
        annotated_size, source = original_mask.shape, f"its mask {annotations.mask_source(index)}"
    decoded = read_reduced(
        annotations.path(index), reduction, annotated_size, source, annotations.value_range
    )
    size = decoded.size
    if original_mask is not None and original_mask.shape != size:
        raise DataError(
            f"{annotations.mask_source(index)}: expected a mask of {size[0]}x{size[1]} pixels as "
            f"{annotations.path(index)} has, got {original_mask.shape[0]}x{original_mask.shape[1]} "
            "(height x width)"
        )
    mask = original_mask
    if annotations.masks is not None and mask is None:
        mask = np.full(size, IGNORE_INDEX, np.uint8)
    instances = annotations.instances(index, size)
    frame, factor = Frame(size), decoded.factor
    if factor > 1:
        frame = frame.scaled(1 / factor, 1 / factor)
        mask = None if mask is None else reduce_mask(mask, factor)
        instances = None if instances is None else reduce_boxes(instances, factor)
    return Sample(key, decoded.pixels, frame, instances, mask, decoded.faults, original_mask)


def read_usable_sample(
    annotations: Annotations, key: SampleKey, reduction: Reduction = unreduced
) -> Sample:
    """Reads an image with its annotation or, if it cannot be used, the next one of the split.

    Images that cannot be used are named in `left_out` of the sample, which is then not counted.
    The arguments are those of `read_sample`.

    Raises:
        DataError: If no image of the split can be used.
    """
    left_out: dict[int, str] = {}
    for step in range(len(annotations)):
        index = (key.index + step) % len(annotations)
        try:
            sample = read_sample(annotations, replace(key, index=index), reduction)
        except DataError as error:
            left_out[index] = str(error)
            continue
        counted = key.counted and not left_out
        return replace(sample, key=replace(sample.key, counted=counted), left_out=left_out)
    first = next(iter(left_out.values()))
    raise DataError(f"{annotations.name}: expected images that can be used, got none: {first}")


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples of one image size into a batch.

    The objects of each image are padded to the largest number in any image, at least one.
    """
    images = np.stack([s.image for s in samples])
    masks = [s.mask for s in samples if s.mask is not None]
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        keys=[s.key for s in samples],
        frames=[s.frame for s in samples],
        boxes=_collate_boxes([s.instances for s in samples]),
        masks=torch.from_numpy(np.stack(masks)) if masks else None,
        original_masks=[s.original_mask for s in samples],
        faults={s.key.index: s.faults for s in samples if s.faults},
        left_out={index: why for s in samples for index, why in s.left_out.items()},
    )


def _collate_boxes(instances_of_images: Sequence[Instances | None]) -> BoxTargets:
    num_images = len(instances_of_images)
    most = max(1, *(len(instances or ()) for instances in instances_of_images))
    boxes = torch.zeros(num_images, most, 4)
    labels = torch.full((num_images, most), -1, dtype=torch.int64)
    ignore = torch.zeros(num_images, most, dtype=torch.bool)
    for row, instances in enumerate(instances_of_images):
        if instances is not None:
            count = len(instances)
            boxes[row, :count] = torch.from_numpy(instances.boxes)
            labels[row, :count] = torch.from_numpy(instances.labels)
            ignore[row, :count] = torch.from_numpy(instances.ignore)
    annotated = torch.tensor([instances is not None for instances in instances_of_images])
    return BoxTargets(boxes, labels, ignore, annotated)
