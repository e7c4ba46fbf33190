"""Samplers: the order of the images of an epoch, divided among processes without overlap."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from jaxtyping import Float, Int64
from torch.utils.data import Sampler

from mbv2det.data.repeat_factors import draw_in_proportion
from mbv2det.structures import SampleKey


class ShuffledShard(Sampler[SampleKey]):
    """One process's share of an epoch in random order, for training.

    The permutation is drawn from (seed, epoch) alone, and all shares have the same length. Where
    the number of images is no multiple of the number of processes, the last images of the
    permutation are left out of this epoch.

    Args:
        num_images: Number of images of the split.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.
        factors: How often each image is shown, relative to others; None for every image once.
    """

    def __init__(
        self,
        num_images: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        factors: Float[np.ndarray, " images"] | None = None,
    ) -> None:
        self.num_images = num_images
        self.factors = factors
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._seen: dict[int, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def start_at(self, epoch: int, samples: int) -> None:
        """Sets the epoch and leaves out the samples of it that a resumed run has already seen.

        The other epochs are complete. The length stays that of a complete epoch.

        Args:
            epoch: Epoch to start in.
            samples: Number of samples of this share to leave out.
        """
        self.epoch = epoch
        self._seen = {epoch: samples}

    def __len__(self) -> int:
        return self.num_images // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.factors is None:
            order = generator.permutation(self.num_images)
        else:
            order = draw_in_proportion(self.factors, generator)
        repeats = _times_before(order)
        start, epoch = self._seen.get(self.epoch, 0), self.epoch
        share = slice(self.rank, None, self.world_size)
        pairs = zip(order[share][: len(self)], repeats[share][: len(self)], strict=True)
        return (SampleKey(epoch, int(i), repeat=int(n)) for i, n in islice(pairs, start, None))


def _times_before(order: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " images"]:
    """Returns how often each element has occurred before in an array."""
    by_value = np.argsort(order, kind="stable")
    values = order[by_value]
    first = np.searchsorted(values, values)
    times = np.empty_like(order)
    times[by_value] = np.arange(len(order)) - first
    return times


class OrderedShard(Sampler[SampleKey]):
    """One process's share of a split in order, for evaluation.

    Every image is counted exactly once over all processes. Shorter shares are filled up with
    repeats marked as not counted: a process with fewer batches would leave the others waiting.

    Args:
        num_images: Number of images of the split.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, num_images: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_images = num_images
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.num_images // self.world_size)

    def __iter__(self) -> Iterator[SampleKey]:
        for position in range(len(self)):
            index = position * self.world_size + self.rank
            yield SampleKey(0, min(index, self.num_images - 1), index < self.num_images)
