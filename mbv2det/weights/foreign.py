"""Weights of other libraries: understood, renamed, accounted for tensor by tensor."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbv2det.errors import ConfigError
from mbv2det.weights.files import WeightsInfo

_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Mismatch:
    """One tensor that has no counterpart.

    Attributes:
        problem: `missing` in the source, `unexpected` there, `of another shape` or `type`.
        name: Theirs.
        expected: Shape, or where in our network it belongs; empty if nowhere.
        got: Shape; empty where missing.
    """

    problem: str
    name: str
    expected: str
    got: str


class MismatchError(ConfigError):
    """Tensors are missing, unexpected or of another shape.

    Attributes:
        rows: All of them.
    """

    def __init__(self, source: str, rows: Sequence[Mismatch]) -> None:
        counts = Counter(row.problem for row in rows)
        found = ", ".join(f"{count} {problem}" for problem, count in counts.items())
        first = rows[0]
        super().__init__(
            f"{source}: expected every tensor to have its place, got {found}; first: {first.name} "
            f"(expected {first.expected or 'none'}, got {first.got or 'none'})"
        )
        self.rows = tuple(rows)


@dataclass(frozen=True)
class Foreign:
    """Another library's weights, and the network of ours that they are for.

    Attributes:
        source: Where they come from, for messages.
        tensors: By their names; layout and meaning of the values are ours already.
        info: The network, its preprocessing and labels.
        name_of: Their name of a tensor of ours.
        notes: What was chosen, changed or left out on reading, a line each.
        reference: The source's own network, from normalised images to what our head says of them:
            logits, of a detector with the deltas behind them in the last dimension; without a head
            the last feature. None where its library is not there.
    """

    source: str
    tensors: Mapping[str, Tensor]
    info: WeightsInfo
    name_of: Callable[[str], str]
    notes: Sequence[str] = ()
    reference: Callable[[Tensor], Tensor] | None = None

    def renamed(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Every tensor under our name; batch norm's counters start at 0 where there are none.

        Args:
            expected: Shapes of our network's tensors by name.

        Raises:
            MismatchError: If a tensor is missing, left over or of another shape.
        """
        rows: list[Mismatch] = []
        found: dict[str, Tensor] = {}
        used: set[str] = set()
        for ours, shape in expected.items():
            theirs = self.name_of(ours)
            used.add(theirs)
            if theirs in self.tensors:
                found[ours] = self.tensors[theirs]
                rows += _differences(theirs, found[ours], shape, is_counter=ours.endswith(_COUNTER))
            elif ours.endswith(_COUNTER):
                found[ours] = torch.zeros(shape, dtype=torch.int64)
            else:
                rows.append(Mismatch("missing", theirs, f"{tuple(shape)} for {ours}", ""))
        for theirs in sorted(self.tensors.keys() - used):
            got = str(tuple(self.tensors[theirs].shape))
            rows.append(Mismatch("unexpected", theirs, "", got))
        if rows:
            raise MismatchError(self.source, rows)
        return found

    def backbone(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """The tensors of a backbone of ours, which may end before theirs.

        Args:
            expected: Shapes of the backbone's tensors by name.

        Raises:
            MismatchError: If one is missing or of another shape.
        """
        whole = {ours: _name_in_a_model(ours) for ours in expected}
        names = {self.name_of(name) for name in whole.values()}
        part = Foreign(
            self.source,
            {theirs: tensor for theirs, tensor in self.tensors.items() if theirs in names},
            self.info,
            self.name_of,
        )
        found = part.renamed({whole[ours]: shape for ours, shape in expected.items()})
        return {ours: found[name] for ours, name in whole.items()}


def _differences(
    name: str, found: Tensor, shape: torch.Size, is_counter: bool
) -> Iterator[Mismatch]:
    """What keeps a tensor from taking its place."""
    if found.shape != shape:
        yield Mismatch("of another shape", name, str(tuple(shape)), str(tuple(found.shape)))
    if not (is_counter or found.is_floating_point()):
        got = str(found.dtype).removeprefix("torch.")
        yield Mismatch("of another type", name, "floating point", got)


def _name_in_a_model(ours: str) -> str:
    """Name of a backbone's tensor where a whole model has it: its classifier is a head there."""
    if ours.startswith("classifier."):
        return f"heads.classification.{ours.removeprefix('classifier.')}"
    return f"backbone.{ours}"
