"""Boxes as four distances from a point, each predicted as a distribution over whole cells.

Source: Generalized Focal Loss (Li et al. 2020, arXiv:2006.04388), section 3.2: eq. 3 to 5 for the
distribution and its expectation, eq. 6 for its loss.
Differs: a cell is as wide and as high as the grid makes it, which need not be square.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# A target beyond the last bin is moved to just below it, as it lies between two bins then.
_MARGIN = 0.01


def expected_distances(
    sides: Float[Tensor, "*batch P 4 bins"],
) -> Float[Tensor, "*batch P 4"]:
    """Returns the expectation of each distribution, in cells.

    Args:
        sides: Logits of the distributions; bin i is a distance of i cells.
    """
    num_bins = sides.shape[-1]
    # Core ML makes integers of a range, whatever its type, unless it is converted; ncnn does not
    # reduce the last of four axes, so that each side has a row of its own.
    bins = torch.arange(num_bins, device=sides.device).to(sides.dtype)[:, None]
    rows = sides.flatten(-3, -2).softmax(dim=-1) @ bins
    return rows.unflatten(-2, (-1, 4)).squeeze(-1)


def distances_to_boxes(
    distances: Float[Tensor, "*batch P 4"], points: Float[Tensor, "*#batch P 4"]
) -> Float[Tensor, "*batch P 4"]:
    """Returns xyxy boxes in pixels of the network input, not clipped.

    Args:
        distances: Distances from the points to the left, top, right and bottom side, in cells.
        points: Centre x, y and cell width and height of the points, in pixels.
    """
    centres, cells = points[..., :2], points[..., 2:]
    low = centres - distances[..., :2] * cells
    return torch.cat([low, centres + distances[..., 2:] * cells], dim=-1)


def boxes_to_distances(
    boxes: Float[Tensor, "*batch 4"], points: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Returns the distances from points to the sides of boxes, in cells.

    They are negative where a point lies outside. Arguments as for `distances_to_boxes`.
    """
    centres, cells = points[..., :2], points[..., 2:]
    low = (centres - boxes[..., :2]) / cells
    return torch.cat([low, (boxes[..., 2:] - centres) / cells], dim=-1)


def distribution_focal_loss(
    sides: Float[Tensor, "M 4 bins"], distances: Float[Tensor, "M 4"]
) -> Float[Tensor, " M"]:
    """Returns the cross entropy with the two bins around each distance, as the mean of four sides.

    The bins are weighted so that the expectation of the target is the distance (eq. 6).

    Args:
        sides: Logits of the distributions.
        distances: Distances to the sides, in cells; they are limited to the range of the bins.
    """
    last = sides.shape[-1] - 1
    distances = distances.clamp(min=0, max=last - _MARGIN)
    lower = distances.floor()
    share = distances - lower  # of the upper bin
    logits, below = sides.flatten(0, 1), lower.long().flatten()
    losses = [
        F.cross_entropy(logits, index, reduction="none").view_as(distances)
        for index in (below, below + 1)
    ]
    return torch.lerp(losses[0], losses[1], share).mean(dim=-1)
