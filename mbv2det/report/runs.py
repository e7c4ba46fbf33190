"""Several runs of one configuration with other seeds: mean and interval of each metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbv2det.report.intervals import interval_over_runs
from mbv2det.report.plain import plain


def spread_over_runs(documents: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns for each task the mean of every metric over runs, and its 95 % interval.

    Args:
        documents: Content of metrics.json of each run; at least two.
    """
    tasks = [name for name, section in documents[0].items() if isinstance(section, Mapping)]
    return {
        task: [
            _row(name, [document[task][name] for document in documents])
            for name, value in documents[0][task].items()
            if isinstance(value, float)
        ]
        for task in tasks
    }


def _row(name: str, values: list[float]) -> dict[str, Any]:
    array = np.array(values, np.float64)
    low, high = interval_over_runs(array)
    return {
        "name": name,
        "mean": plain(array.mean()),
        "low": plain(low),
        "high": plain(high),
        "values": plain(array),
    }
