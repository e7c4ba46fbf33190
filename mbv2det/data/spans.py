"""Selections from flat arrays that hold spans of different lengths one after the other."""

import numpy as np
from jaxtyping import Int64


def take_spans(
    starts: Int64[np.ndarray, " bounds"], rows: Int64[np.ndarray, " M"]
) -> tuple[Int64[np.ndarray, " values"], Int64[np.ndarray, " M+1"]]:
    """Returns where the values of some spans are, and the starts of these spans when concatenated.

    Args:
        starts: First position of each span, and the number of positions at the end.
        rows: The spans to take, in the order in which they are concatenated.
    """
    lengths = starts[rows + 1] - starts[rows]
    new_starts = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    shifts = np.repeat(starts[rows] - new_starts[:-1], lengths)
    return np.arange(new_starts[-1], dtype=np.int64) + shifts, new_starts
