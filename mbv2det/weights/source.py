"""Weights as they were read: tensors by the names of their source, and how to rename them to ours.

Every tensor is accounted for: one that is missing, unexpected or of the wrong shape is an error.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbv2det.errors import ConfigError
from mbv2det.weights.header import WeightsInfo

_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Mismatch:
    """One tensor that the source and our network do not agree on.

    Attributes:
        problem: `missing` or `unexpected` in the source, or `wrong shape`, `wrong type`.
        name: The tensor's name in the source.
        expected: Expected shape (and the tensor of ours that it is for), or the expected type;
            empty for an unexpected tensor.
        got: Shape or type in the source; empty for a missing tensor.
    """

    problem: str
    name: str
    expected: str
    got: str


class MismatchError(ConfigError):
    """Tensors of a source that do not match our network's.

    Attributes:
        rows: All mismatches.
    """

    def __init__(self, source: str, rows: Sequence[Mismatch]) -> None:
        counts = Counter(row.problem for row in rows)
        problems = ", ".join(f"{count} {problem}" for problem, count in counts.items())
        first = rows[0]
        super().__init__(
            f"{source}: expected the tensors of the network, got {problems}; first: {first.name} "
            f"(expected {first.expected or 'none'}, got {first.got or 'none'})"
        )
        self.rows = tuple(rows)


@dataclass(frozen=True)
class WeightsSource:
    """Weights from a file or another library, with a description of the network they are for.

    Attributes:
        source: File, folder or name that the weights were read from, for messages.
        tensors: Tensors by their names in the source; the layout and the order of rows are
            already those of our network.
        info: The network, its preprocessing and its label maps.
        name_of: Maps the name of a tensor of our network to its name in the source.
        notes: What was chosen, changed or left out while reading; one line each.
        reference: The source's own network, from normalised images (B, 3, H, W) to the output that
            our head gives: the logits of a classifier (B, K) or of a segmenter (B, L, h, w).
            Without a head, the last feature (B, C, h, w). None where its library is not
            installed, or where there is no such library.
    """

    source: str
    tensors: Mapping[str, Tensor]
    info: WeightsInfo
    name_of: Callable[[str], str]
    notes: Sequence[str] = ()
    reference: Callable[[Tensor], Tensor] | None = None

    def renamed(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Returns all tensors under the names of our network.

        Counters of batch norm that the source lacks start at 0.

        Args:
            expected: Shapes of our network's tensors by name.

        Raises:
            MismatchError: If a tensor is missing, unexpected, or of the wrong shape or type.
        """
        mismatches: list[Mismatch] = []
        renamed: dict[str, Tensor] = {}
        used: set[str] = set()
        for name, shape in expected.items():
            source_name = self.name_of(name)
            is_counter = name.endswith(_COUNTER)
            used.add(source_name)
            if source_name in self.tensors:
                renamed[name] = self.tensors[source_name]
                mismatches += _mismatches(source_name, renamed[name], shape, is_counter)
            elif is_counter:
                renamed[name] = torch.zeros(shape, dtype=torch.int64)
            else:
                mismatches.append(
                    Mismatch("missing", source_name, f"{tuple(shape)} for {name}", "")
                )
        for source_name in sorted(self.tensors.keys() - used):
            got = str(tuple(self.tensors[source_name].shape))
            mismatches.append(Mismatch("unexpected", source_name, "", got))
        if mismatches:
            raise MismatchError(self.source, mismatches)
        return renamed

    def backbone(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Returns the tensors of a backbone, which may end earlier than the source's.

        Args:
            expected: Shapes of the backbone's tensors, by their names within the backbone.

        Raises:
            MismatchError: If a tensor is missing, or of the wrong shape or type.
        """
        model_names = {name: _name_in_model(name) for name in expected}
        wanted = {self.name_of(name) for name in model_names.values()}
        part = WeightsSource(
            self.source,
            {name: tensor for name, tensor in self.tensors.items() if name in wanted},
            self.info,
            self.name_of,
        )
        renamed = part.renamed({model_names[name]: shape for name, shape in expected.items()})
        return {name: renamed[model_name] for name, model_name in model_names.items()}


def _mismatches(
    name: str, tensor: Tensor, shape: torch.Size, is_counter: bool
) -> Iterator[Mismatch]:
    """Yields what is wrong with a tensor's shape and type."""
    if tensor.shape != shape:
        yield Mismatch("wrong shape", name, str(tuple(shape)), str(tuple(tensor.shape)))
    if not (is_counter or tensor.is_floating_point()):
        got = str(tensor.dtype).removeprefix("torch.")
        yield Mismatch("wrong type", name, "floating point", got)


def _name_in_model(name: str) -> str:
    """Returns a backbone tensor's name in a whole model, where the classifier is a head."""
    if name.startswith("classifier."):
        return f"heads.classification.{name.removeprefix('classifier.')}"
    return f"backbone.{name}"
