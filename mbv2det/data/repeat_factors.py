"""Repeat-factor sampling: images with rare classes are shown more often.

For a class c that is in a fraction f(c) of the images, the class's factor is
r(c) = max(1, sqrt(t / f(c))) with a threshold t; the factor of an image is the largest of its
classes. Classes in at least a fraction t of the images are not repeated.

Source: Gupta et al. 2019, LVIS (arXiv:1908.03195), appendix B.2. Differs: the length of an epoch
stays the number of images, so that schedules and their steps do not depend on the setting; images
are drawn in proportion to their factors instead.
"""

import numpy as np
from jaxtyping import Float, Int64

from mbv2det.data.annotations import Annotations
from mbv2det.errors import ConfigError


def repeat_factors(split: Annotations, threshold: float) -> Float[np.ndarray, " images"]:
    """Returns how often each image should be shown, relative to one without rare classes.

    Objects that are ignored do not count. Images without objects have the factor 1.

    Args:
        split: Split with objects.
        threshold: Fraction of the images below which a class is rare, 0..1.

    Raises:
        ConfigError: If the split has no objects: masks would all have to be read.
    """
    objects = split.objects
    if objects is None:
        raise ConfigError(
            f"data.repeat_threshold: expected 0 for data without boxes, got {threshold:g}"
        )
    rows = ~objects.ignore
    # Every pair of an image and a class once, however many objects there are.
    pairs = np.unique(np.stack([objects.image[rows], objects.labels[rows]]), axis=1)
    images, classes = pairs
    counts = np.bincount(classes, minlength=len(objects.label_map))
    fractions = np.maximum(counts, 1) / len(split)
    of_class = np.maximum(1.0, np.sqrt(threshold / fractions))
    factors = np.ones(len(split))
    np.maximum.at(factors, images, of_class[classes])
    return factors


def draw_in_proportion(
    factors: Float[np.ndarray, " images"], generator: np.random.Generator
) -> Int64[np.ndarray, " images"]:
    """Returns as many images as there are, each in proportion to its factor, in random order.

    An image whose share is 2.3 is taken twice, and a third time with probability 0.3: one random
    offset decides for all images (systematic sampling), so that no image is missing by bad luck
    whose share is at least 1.

    Args:
        factors: How often each image should be shown, relative to others.
        generator: Source of the random numbers.
    """
    count = len(factors)
    order = generator.permutation(count)
    ends = np.cumsum(factors[order]) / factors.sum() * count
    ends[-1] = count  # not an ulp less, which would lose an image
    taken = np.diff(np.floor(ends + generator.random()), prepend=0.0).astype(np.int64)
    return generator.permutation(np.repeat(order, taken))
