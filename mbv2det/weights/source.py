"""Weights as read from their source: tensors under the source's names, and their renaming to ours.

Every tensor is checked: one that is missing, unexpected or of the wrong shape is an error.
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
    """One tensor that differs between the source and our network.

    Attributes:
        problem: `missing` or `unexpected` in the source, or `wrong shape`, `wrong type`.
        name: The tensor's name in the source.
        expected: Expected shape, followed by our name of a missing tensor, or expected type; empty
            for an unexpected tensor.
        got: Shape or type in the source; empty for a missing tensor.
    """

    problem: str
    name: str
    expected: str
    got: str


class MismatchError(ConfigError):
    """Error that the tensors of a source do not match our network.

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
    """Weights from a file or another library, with a description of their network.

    Attributes:
        source: File, folder or name that the weights were read from, for messages.
        tensors: Tensors by their names in the source, in the layout and with the order of rows of
            our network.
        info: Header that describes the network, its preprocessing and its label maps.
        name_of: Function from the name of a tensor of our network to its name in the source.
        notes: Choices, changes and omissions of the reader, one line each.
        reference: The source's own network, from normalised images (B, 3, H, W) to the output of
            our head: the logits of a classifier (B, K) or of a segmentation head (B, L, h, w), or
            the last feature (B, C, h, w) without a head. None if its library is not installed, or
            if there is no such library.
    """

    source: str
    tensors: Mapping[str, Tensor]
    info: WeightsInfo
    name_of: Callable[[str], str]
    notes: Sequence[str] = ()
    reference: Callable[[Tensor], Tensor] | None = None

    def renamed(self, expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Returns all tensors under their names in our network.

        Missing counters of batch norm are set to 0.

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
        """Returns the tensors of a backbone, which may have fewer layers than the source's.

        Args:
            expected: Shapes of the backbone's tensors, by their names within the backbone.

        Raises:
            MismatchError: If a tensor is missing, or of the wrong shape or type.
        """
        model_names = {name: _name_in_model(name) for name in expected}
        source_names = {self.name_of(name) for name in model_names.values()}
        backbone_source = WeightsSource(
            self.source,
            {name: tensor for name, tensor in self.tensors.items() if name in source_names},
            self.info,
            self.name_of,
        )
        renamed = backbone_source.renamed(
            {model_names[name]: shape for name, shape in expected.items()}
        )
        return {name: renamed[model_name] for name, model_name in model_names.items()}


def _mismatches(
    name: str, tensor: Tensor, shape: torch.Size, is_counter: bool
) -> Iterator[Mismatch]:
    """Yields the mismatches of a tensor's shape and type."""
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
