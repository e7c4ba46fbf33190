"""The largest batch whose training step fits into memory.

On a GPU steps of growing batches are tried until the memory is used up. A CPU has no such limit:
the system would kill the process, or swap. There the memory of a step is computed from what the
backward pass keeps of two small batches, which grows in proportion to the batch.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mbv2det.structures import Batch, BoxTargets

_CPU_BATCHES = (2, 4)
# Of what the backward pass keeps: gradients of activations, copies in other memory layouts, and
# what allocators lose. SSDLite at 320 pixels in float32 kept 61 MiB an image; the process grew by
# 134.
_CPU_OVERHEAD = 2.5
_SHARE = 0.8  # of the free memory: other batches may have more objects, and loaders need some
_MOST = 4096


def largest_that_fits(step: Callable[[int], None], most: int = _MOST) -> int:
    """Returns the largest batch for which a step succeeds, within an eighth; 0 if none does.

    Args:
        step: Takes a training step with a batch of this size; raises torch.OutOfMemoryError.
        most: Largest batch to try.
    """

    def fits(size: int) -> bool:
        try:
            step(size)
        except torch.OutOfMemoryError:
            return False
        return True

    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_by_estimate(loss: Callable[[int], Tensor], free_bytes: float) -> int:
    """Returns the largest batch that fits by the memory that two small ones need; 0 if none does.

    Args:
        loss: Computes the loss of a batch of this size.
        free_bytes: Free memory. That of weights, gradients and optimiser is not counted: it does
            not grow with the batch and is small beside the activations of this toolkit's networks.
    """
    small, large = (_kept_bytes(partial(loss, size)) for size in _CPU_BATCHES)
    per_image = (large - small) / (_CPU_BATCHES[1] - _CPU_BATCHES[0])
    fixed = max(0.0, small - _CPU_BATCHES[0] * per_image)
    room = _SHARE * free_bytes - _CPU_OVERHEAD * fixed
    return min(_MOST, max(0, int(room / (_CPU_OVERHEAD * per_image))))


def _kept_bytes(loss: Callable[[], Tensor]) -> int:
    """Returns the bytes of the tensors that are kept for the backward pass, each memory once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss()  # holds the graph, so that no memory is counted twice or reused
    del result
    return sum(kept.values())


def resized(batch: Batch, size: int) -> Batch:
    """Returns a batch of another number of images, repeating its own."""
    rows = torch.arange(size) % len(batch)
    boxes = batch.boxes
    return Batch(
        images=batch.images[rows],
        keys=[batch.keys[row] for row in rows.tolist()],
        frames=[batch.frames[row] for row in rows.tolist()],
        boxes=BoxTargets(
            boxes.boxes[rows], boxes.labels[rows], boxes.ignore[rows], boxes.annotated[rows]
        ),
        masks=None if batch.masks is None else batch.masks[rows],
    )
