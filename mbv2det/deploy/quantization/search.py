"""The search for the parts of a network that have to stay in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One int8 file that was measured.

    Attributes:
        float_parts: Parts of the network that it computes in float32.
        drop: Largest drop of a task's main metric, 0..1.
    """

    float_parts: tuple[str, ...]
    drop: float


@dataclass(frozen=True)
class Search:
    """All files that a search measured.

    Attributes:
        steps: The files, in the order in which they were measured.
        found: The one with the fewest parts in float32 whose drop is allowed; None if there is
            none.
    """

    steps: tuple[Step, ...]
    found: Step | None


def search_float_parts(
    ranking: Callable[[], Sequence[str]],
    drop_of: Callable[[tuple[str, ...]], float],
    max_drop: float,
) -> Search:
    """Leaves the most sensitive parts in float32, as few as possible, until the drop is allowed.

    The number of parts is found by bisection, which takes the drop to fall with it.

    Args:
        ranking: Returns all parts, the most sensitive first; called if int8 alone drops too much.
        drop_of: Measures the drop with some parts in float32.
        max_drop: Largest drop that is allowed.
    """
    steps = [Step((), drop_of(()))]
    if steps[0].drop <= max_drop:
        return Search(tuple(steps), steps[0])
    parts = tuple(ranking())
    found, too_few, enough = None, 0, len(parts)
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        step = Step(parts[:count], drop_of(parts[:count]))
        steps.append(step)
        if step.drop <= max_drop:
            found, enough = step, count
        else:
            too_few = count
    return Search(tuple(steps), found)
