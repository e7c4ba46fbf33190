"""Intervals of a metric over images that might have been drawn, and over runs."""

import math
from collections.abc import Callable, Iterable, Iterator
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

LEVEL = 0.95
"""Share of repetitions whose interval contains the true value."""

_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

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


def interval(
    values: Float64[np.ndarray, " V"], samples: Float64[np.ndarray, "B V"]
) -> Float64[np.ndarray, "2 V"]:
    """Returns the ends of the 95 % intervals of values; NaN where no draw has a value.

    The bias-corrected percentiles: drawn images repeat, which alone raises average precision.

    Args:
        values: Values of the images themselves.
        samples: Values of each draw of images.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, sec. 14.3, with an
        acceleration of 0.
    """
    return np.stack(
        [_interval(value, drawn) for value, drawn in zip(values, samples.T, strict=True)], axis=1
    )


def _interval(value: float, drawn: Float64[np.ndarray, " B"]) -> Float64[np.ndarray, " 2"]:
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn) or math.isnan(value):
        return np.full(2, np.nan)
    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    ends = [normal.cdf(2 * bias + normal.inv_cdf(share)) for share in _ENDS]
    return np.quantile(drawn, ends)


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
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def mean_of_defined(values: Float64[np.ndarray, "*V"]) -> float:
    """Returns the mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
