"""Arrays as plain values for JSON."""

import math
from typing import Any

import numpy as np


def plain(values: Any, digits: int = 4) -> Any:
    """Returns an array or a number as lists or a number for JSON.

    Floats are rounded; NaN, which stands for nothing to measure, becomes None.
    """
    if isinstance(values, np.ndarray):
        return [plain(value, digits) for value in values]
    if isinstance(values, float | np.floating):
        return None if math.isnan(values) else round(float(values), digits)
    return values.item() if isinstance(values, np.generic) else values


def plain_metric(name: str, value: float | None, ends: Any = None) -> dict[str, Any]:
    """Returns a metric with the ends of its interval, if it has one; the value is not rounded."""
    low, high = (None, None) if ends is None else plain(np.asarray(ends), 6)
    return {"name": name, "value": value, "low": low, "high": high}
