"""What a quantiser of exported files is, and what it quantises.

The backbone and the heads are quantised: convolutions with int8 weights, one scale for each output
channel, and 8-bit features between them. All else stays in float32: the normalisation of the
images, and the output layers with sigmoid or softmax, the decoding of boxes, NMS and the last
resampling. The names of the nodes in the file begin with the module that computes them
(`MODULE/NODE`), so what a node belongs to is read from its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor

from mbv2det.extras import require

_QUANTIZED = ("backbone", "heads")  # members of the network


@dataclass(frozen=True)
class Calibration:
    """What an exported file is quantised with.

    Attributes:
        images: Images of the network's input size, from which the ranges of the features are taken.
        float_parts: Parts of the network that stay in float32, as `parts_of` names them.
    """

    images: UInt8[Tensor, "N 3 H W"]
    float_parts: Sequence[str] = ()

    def quantizes(self, node: str) -> bool:
        """Returns whether a node of the file is to be quantised.

        Args:
            node: Name of the node, `MODULE/NODE`.
        """
        module = node.split("/")[0].removeprefix("model.")
        return _within(module, _QUANTIZED) and not _within(module, self.float_parts)


def _within(module: str, parts: Sequence[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


class Quantizer(ABC):
    """Turns an exported float32 file into an int8 file of the same format.

    Attributes:
        extra: Extra of this project that brings its packages.
        packages: Modules that it needs.
        distributions: Distributions whose versions are recorded in the files.
    """

    extra: ClassVar[str]
    packages: ClassVar[Sequence[str]]
    distributions: ClassVar[Sequence[str]]

    def require_packages(self) -> None:
        """Imports what it needs.

        Raises:
            ConfigError: If a package is missing.
        """
        for package in self.packages:
            require(package, self.extra, "--precision int8")

    def versions(self) -> dict[str, str]:
        """Returns the versions of the packages that quantise."""
        return {name: version(name) for name in self.distributions}

    @abstractmethod
    def quantize(
        self, source: Path, path: Path, calibration: Calibration, metadata: Mapping[str, str]
    ) -> None:
        """Writes the int8 file.

        Args:
            source: The float32 file.
            path: File to write.
            calibration: Images, and what stays in float32.
            metadata: Texts that the file carries, by key.
        """
