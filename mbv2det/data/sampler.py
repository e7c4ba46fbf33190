"""Which image comes when: a function of (seed, epoch), shared among processes without overlap."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from mbv2det.structures import SampleKey


class ShuffledShard(Sampler[SampleKey]):
    """One process's share of an epoch in random order, equally long in every process.

    The permutation is drawn from (seed, epoch) alone. The images left over when the split does not
    divide evenly wait for another epoch's permutation.

    Args:
        num_images: Of the split.
        seed: Of the run.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(self, num_images: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_images = num_images
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_images)
        mine = order[self.rank :: self.world_size][: len(self)]
        return (SampleKey(self.epoch, int(index)) for index in mine)


class OrderedShard(Sampler[SampleKey]):
    """Every process's share of a split in order, for evaluation.

    Every image is counted exactly once over all processes. Shares are filled up with repeats that
    are marked as not counted, since a process with fewer batches would leave the others waiting.

    Args:
        num_images: Of the split.
        rank: Of this process.
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
