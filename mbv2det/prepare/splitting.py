"""A training and a validation split of a data set that has none."""

import numpy as np
from jaxtyping import Bool, Int64

_VAL_SHARE = 0.2


def choose_validation(
    groups: Int64[np.ndarray, " N"], classes: Bool[np.ndarray, "N K"], seed: int
) -> Bool[np.ndarray, " N"]:
    """Chooses about a fifth of the images, group by group in random order.

    A group stays in the training split if it has the last images of a class there, or if the
    validation split would grow beyond a fifth. If every group is too large, the smallest group is
    chosen. A single group is both: it is returned as chosen, and there is nothing else to train on.

    Args:
        groups: Number of each image's group.
        classes: Whether an image has a class.
        seed: Seed of the order.

    Returns:
        True for the images of the validation split.
    """
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    sizes = np.bincount(groups)
    target = max(1, round(_VAL_SHARE * len(groups)))
    left = classes.sum(axis=0)
    chosen: list[int] = []
    count = 0
    for group in order.tolist():
        has = classes[groups == group].sum(axis=0)
        if count + sizes[group] <= target and not ((has > 0) & (left == has)).any():
            chosen.append(group)
            count += int(sizes[group])
            left = left - has
    if not chosen:
        chosen = [min(order.tolist(), key=lambda group: sizes[group])]
    return np.isin(groups, chosen)
