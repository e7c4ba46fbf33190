"""Intervals of a metric over images that might have been drawn, and over runs."""

import math
from collections.abc import Callable, Iterable, Iterator
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

LEVEL = 0.95
"""Share of repetitions whose interval contains the true value."""

# Quantiles of Student's distribution at 97.5 % for 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def image_weights(
    images: Int64[np.ndarray, " M"], num_images: int, times: int, seed: int = 0
) -> Iterator[Float64[np.ndarray, " I"]]:
    """Yields how often each image is drawn, as many images as there are, with replacement.

    Args:
        images: Indices of the measured images.
        num_images: Number of images of the split.
        times: Number of draws.
        seed: Seed of the draws.
    """
    draw = np.random.default_rng(seed)
    for _ in range(times):
        chosen = draw.choice(images, len(images))
        yield np.bincount(chosen, minlength=num_images).astype(np.float64)


def resample(
    measure: Callable[[Float64[np.ndarray, " I"]], Float64[np.ndarray, " V"]],
    weights: Iterable[Float64[np.ndarray, " I"]],
) -> Float64[np.ndarray, "B V"]:
    """Returns the values of a measure for each draw of images."""
    return np.stack([measure(weight) for weight in weights])


def percentile_interval(
    samples: Float64[np.ndarray, "B *V"],
) -> Float64[np.ndarray, "2 *V"]:
    """Returns the ends of the 95 % interval of resampled values; NaN where no draw has a value.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, sec. 13.3.
    """
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    result = np.full((2, *samples.shape[1:]), np.nan)
    defined = ~np.isnan(samples).all(axis=0)
    result[:, defined] = np.nanquantile(samples[:, defined], ends, axis=0)
    return result


def interval_over_runs(values: Float64[np.ndarray, " R"]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean over runs with other seeds (Student's distribution).

    Args:
        values: Metric of each run; at least two.
    """
    freedom = len(values) - 1
    half = student_quantile(freedom) * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return mean - half, mean + half


def student_quantile(freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's distribution, to three digits.

    Source: for more than 10 degrees of freedom the expansion of Abramowitz and Stegun, 26.7.5.
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def mean_of_defined(values: Float64[np.ndarray, "*V"]) -> float:
    """Returns the mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
