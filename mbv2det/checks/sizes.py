"""The sizes of the objects at the size of the network input."""

import numpy as np

from mbv2det.data.annotations import Annotations
from mbv2det.data.statistics import network_boxes
from mbv2det.preprocess import Preprocessor

_SMALL = 8  # pixels: half a cell of the finest feature map of SSDLite


def describe_sizes(split: Annotations, preprocessor: Preprocessor) -> str:
    """Returns a line with the quantiles of the objects' sides, the square roots of their areas.

    Args:
        split: Split with objects.
        preprocessor: Preprocessing to the network input.
    """
    boxes = network_boxes(split, preprocessor)
    height, width = preprocessor.spec.size
    if not len(boxes):
        return f"no object of a known size at {height}x{width}"
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    low, middle, high = np.quantile(sides, (0.05, 0.5, 0.95))
    small = float((sides < _SMALL).mean())
    return (
        f"sides at {height}x{width}: 5% below {low:.0f}, half below {middle:.0f}, 95% below "
        f"{high:.0f} pixels; {small:.1%} below {_SMALL}"
    )
