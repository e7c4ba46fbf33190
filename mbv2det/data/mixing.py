"""Augmentation that mixes several images of a split: mosaic and copy-paste."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mbv2det.augment_config import AugmentConfig
from mbv2det.data.annotations import Annotations
from mbv2det.data.augment import seed_of
from mbv2det.data.copy_paste import copy_paste, pieces_of
from mbv2det.data.mosaic import NUM_TILES, mosaic
from mbv2det.preprocess import Preprocessor
from mbv2det.structures import Sample, SampleKey

Reader = Callable[[SampleKey], Sample]
"""Reads a sample as it is in the files."""

_STREAM = 1  # of random numbers, beside that of `Augment`


def mixing_of_run(
    spec: AugmentConfig,
    preprocessor: Preprocessor,
    seed: int,
    annotations: Annotations,
    max_epochs: int | None,
) -> "Mixing | None":
    """Returns the mixing of a run; None if its settings have none.

    Args:
        spec: Settings of the augmentation.
        preprocessor: Preprocessing of the run.
        seed: Seed of the run.
        annotations: Training split.
        max_epochs: Lightning's setting: None or -1 for any number.

    Raises:
        ConfigError: If there is copy-paste, but nothing that can be copied.
    """
    if not spec.mosaic and not spec.copy_paste:
        return None
    epochs = max_epochs if max_epochs is not None and max_epochs >= 0 else None
    return Mixing(spec, preprocessor, seed, annotations, epochs)


class Mixing:
    """Mixes an image with others by chance, before it is augmented.

    All random numbers are a function of (seed, epoch, index, repeat). Other images are drawn among
    those whose objects are annotated if and only if those of the image are.

    Args:
        spec: Settings of the augmentation.
        preprocessor: Preprocessing of the run: each image of a mosaic is resized by its rule.
        seed: Seed of the run.
        annotations: Training split.
        epochs: Epochs of the run; None for any number: then all have mosaics.

    Raises:
        ConfigError: If there is copy-paste, but nothing that can be copied.
    """

    def __init__(
        self,
        spec: AugmentConfig,
        preprocessor: Preprocessor,
        seed: int,
        annotations: Annotations,
        epochs: int | None = None,
    ) -> None:
        self._spec = spec
        self._preprocessor = preprocessor
        self._seed = seed
        self._mosaic_epochs = math.inf if epochs is None else spec.mosaic_share * epochs
        self._pieces = pieces_of(annotations) if spec.copy_paste else None
        objects = annotations.objects
        self._annotated = np.ones(len(annotations), bool) if objects is None else objects.annotated

    def __call__(self, sample: Sample, read: Reader) -> Sample:
        """Returns the mixed sample; its frame no longer refers to the original file.

        Args:
            sample: Sample as it was read.
            read: Reads other samples of the split.
        """
        seeds = np.random.SeedSequence(seed_of(self._seed, sample.key), spawn_key=(_STREAM,))
        generator = np.random.default_rng(seeds)
        has_paste, has_mosaic = generator.random(2) < [self._spec.copy_paste, self._spec.mosaic]
        if self._pieces is not None and has_paste:
            source = self._other(sample, read, generator)
            sample = copy_paste(sample, source, self._pieces, generator)
        if has_mosaic and sample.key.epoch < self._mosaic_epochs:
            others = [self._other(sample, read, generator) for _ in range(NUM_TILES - 1)]
            sample = self._mosaic([sample, *others], generator)
        return sample

    def _other(self, sample: Sample, read: Reader, generator: np.random.Generator) -> Sample:
        is_annotated = self._annotated[sample.key.index]
        candidates = np.flatnonzero(self._annotated == is_annotated)
        index = int(candidates[generator.integers(len(candidates))])
        return replace(read(replace(sample.key, index=index)), original_mask=None)

    def _mosaic(self, tiles: list[Sample], generator: np.random.Generator) -> Sample:
        """Returns a mosaic of twice the network input's sides, with its centre in the middle half.

        The four images have random places.
        """
        height, width = self._preprocessor.spec.size
        centre = (
            int(generator.integers(height // 2, height + height // 2 + 1)),
            int(generator.integers(width // 2, width + width // 2 + 1)),
        )
        resized = [self._preprocessor.resized(tile) for tile in tiles]
        placed = [resized[i] for i in generator.permutation(NUM_TILES)]
        whole = mosaic(placed, (2 * height, 2 * width), centre, self._preprocessor.spec.fill)
        return replace(whole, key=tiles[0].key, faults=tiles[0].faults)
