"""What a file format of exported networks is."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.deploy.quantization.quantizer import Quantizer
from mbv2det.extras import require

INT8 = "int8"
PRECISIONS = ("fp32", "fp16", "bf16", INT8)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Format(ABC):
    """A file format, and how a network is written to it.

    Attributes:
        name: Name of the format.
        suffix: What names of its files end with.
        extra: Extra of this project that brings its packages.
        packages: Modules that writing needs.
        precisions: Precisions that it can hold.
        graph_precisions: Those that change the graph in PyTorch; for the others the format converts
            a graph in float32.
        dynamic_batch: Whether its files take any number of images at once, or one.
        operators: Operators that it can express, of those that some formats lack.
        distributions: Distributions whose versions are recorded in its files.
        quantizer: What makes int8 files of float32 files; None if there is nothing.
        not_run: Why its files are not run for the comparison with PyTorch; empty if they are.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    extra: ClassVar[str]
    packages: ClassVar[Sequence[str]] = ()
    precisions: ClassVar[Sequence[str]] = ("fp32", "fp16")
    graph_precisions: ClassVar[Sequence[str]] = ()
    dynamic_batch: ClassVar[bool] = False
    operators: ClassVar[Sequence[str]] = ()
    distributions: ClassVar[Sequence[str]] = ()
    quantizer: ClassVar[Quantizer | None] = None
    not_run: ClassVar[str] = ""

    def require_packages(self) -> None:
        """Imports what writing needs.

        Raises:
            ConfigError: If a package is missing.
        """
        for package in self.packages:
            require(package, self.extra, f"--format {self.name}")

    def versions(self) -> dict[str, str]:
        """Returns the versions of the packages that write the files."""
        return {name: version(name) for name in ("mbv2det", "torch", *self.distributions)}

    @abstractmethod
    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes a file, which appears whole or not at all.

        Args:
            network: What the file is to compute, in the precision of its graph.
            images: Example of its input, (B, 3, height, width) of uint8.
            path: File to write.
            precision: Precision of the file.
            metadata: Texts that the file carries, by key.
        """


def metadata_path(path: Path) -> Path:
    """Returns the file that carries the texts of a format without place for them."""
    return path.with_name(f"{path.name}.json")


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Writes the texts of a file beside it."""
    metadata_path(path).write_text(json.dumps(dict(metadata), indent=2) + "\n")


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts that stand beside a file; empty if there are none."""
    beside = metadata_path(path)
    return json.loads(beside.read_text()) if beside.is_file() else {}
