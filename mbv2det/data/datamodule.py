"""The splits of a data set as Lightning wants them."""

from collections.abc import Callable

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from mbv2det.data.annotations import Annotations
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.data.sampler import OrderedShard, ShuffledShard
from mbv2det.errors import ConfigError
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample


class DenseData(pl.LightningDataModule):
    """Loaders over annotated images, in shares that do not overlap between processes.

    Args:
        train: The split trained on; None where only evaluation is wanted.
        val: The split evaluated on.
        preprocessor: Of the weights.
        augment: Of the training split.
        batch_size: Images per process and step.
        num_workers: Of each loader.
        seed: Of the order.
    """

    def __init__(
        self,
        train: Annotations | None,
        val: Annotations,
        preprocessor: Preprocessor,
        augment: Callable[[Sample], Sample] | None,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.train = train
        self.val = val
        self.preprocessor = preprocessor
        self.augment = augment
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented, in full batches: batch norm should not see a batch of one."""
        assert self.train is not None
        rank, world = self._place()
        sampler = ShuffledShard(len(self.train), self.seed, rank, world)
        if len(sampler) < self.batch_size:
            raise ConfigError(
                f"data.batch_size: expected at most the {len(sampler)} training images that each "
                f"of {world} processes has, got {self.batch_size}"
            )
        data = AnnotatedImages(self.train, self.preprocessor, self.augment)
        return self._loader(data, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Every image once, in order."""
        sampler = OrderedShard(len(self.val), *self._place())
        return self._loader(AnnotatedImages(self.val, self.preprocessor), sampler)

    def _place(self) -> tuple[int, int]:
        """(rank, world size)."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(
        self,
        data: AnnotatedImages,
        sampler: ShuffledShard | OrderedShard,
        drop_last: bool = False,
    ) -> DataLoader[Sample]:
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0 and drop_last,
            pin_memory=torch.cuda.is_available(),
        )
