"""The data loaders of training and validation, as Lightning expects them."""

import signal
from collections.abc import Callable
from typing import Literal

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader

from mbv2det.data.annotations import Annotations
from mbv2det.data.dataset import AnnotatedImages, collate
from mbv2det.data.images import Reduction, unreduced
from mbv2det.data.mixing import Mixing
from mbv2det.data.sampler import OrderedShard, ShuffledShard
from mbv2det.errors import ConfigError
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample


class DenseData(pl.LightningDataModule):
    """Data loaders over annotated images, which are divided among processes without overlap.

    Args:
        train: Training split; None for evaluation only.
        val: Validation split.
        preprocessor: Preprocessing that belongs to the weights.
        augment: Random augmentation of the training samples; None for evaluation only.
        batch_size: Images per process and step.
        num_workers: Worker processes of each loader.
        seed: Seed of the order of the training images.
        on_error: What happens with an image that cannot be used; see `AnnotatedImages`.
        factors: How often each training image is shown, relative to others; None for once each.
        mix: Mixes training samples with others; see `AnnotatedImages`.
        reduction: By what factor a training image may be reduced while it is decoded.
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
        on_error: Literal["stop", "skip"] = "stop",
        factors: Float[np.ndarray, " images"] | None = None,
        mix: Mixing | None = None,
        reduction: Reduction = unreduced,
    ) -> None:
        super().__init__()
        self.factors = factors
        self.reduction = reduction
        self.mix = mix
        self.train = train
        self.val = val
        self.preprocessor = preprocessor
        self.augment = augment
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.on_error = on_error
        self._start = (0, 0)  # epoch, and images of it that an interrupted run has taken

    def state_dict(self) -> dict[str, int]:
        """Returns the position in the data, for resuming: epoch, and images taken of it.

        It holds for any batch size and number of processes. Lightning would save the state of the
        loader, but drops it where the schedule asks for the number of steps.
        """
        if self.trainer is None:
            return {}
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress
        taken = 0 if batches.is_last_batch else batches.current.ready
        epoch = loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return {"epoch": epoch, "images": taken * self._images_per_step()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Makes the next training loader start at a position of `state_dict`."""
        images = state_dict.get("images")
        if images is None:  # of an earlier version, which could not change the batch size
            images = state_dict["batches"] * self._images_per_step()
        self._start = state_dict["epoch"], images

    @property
    def num_taken_batches(self) -> int:
        """Batches of today's size that the images taken before resuming amount to."""
        return self._start[1] // self._images_per_step()

    def _images_per_step(self) -> int:
        return self.batch_size * self._rank_and_world_size()[1]

    def train_dataloader(self) -> DataLoader[Sample]:
        """Returns a loader of shuffled and augmented images.

        An incomplete last batch is left out: batch norm cannot train on a batch of one image.

        Raises:
            ConfigError: If a process has fewer images than one batch needs.
        """
        assert self.train is not None
        rank, world_size = self._rank_and_world_size()
        sampler = ShuffledShard(len(self.train), self.seed, rank, world_size, self.factors)
        if len(sampler) < self.batch_size:
            raise ConfigError(
                f"data.batch_size: expected at most the {len(sampler)} training images that each "
                f"of {world_size} processes has, got {self.batch_size}"
            )
        epoch, images = self._start
        sampler.start_at(epoch, images // world_size)
        dataset = AnnotatedImages(
            self.train,
            self.preprocessor,
            self.augment,
            self.on_error,
            self.mix,
            self.reduction,
        )
        return self._loader(dataset, sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Returns a loader of every image once, in order."""
        sampler = OrderedShard(len(self.val), *self._rank_and_world_size())
        dataset = AnnotatedImages(self.val, self.preprocessor, None, self.on_error)
        return self._loader(dataset, sampler)

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(
        self,
        dataset: AnnotatedImages,
        sampler: ShuffledShard | OrderedShard,
        drop_last: bool = False,
    ) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0 and drop_last,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_interrupts_to_the_trainer,
        )


def _leave_interrupts_to_the_trainer(worker: int) -> None:
    """Makes a worker survive Ctrl-C, which reaches all processes of a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
