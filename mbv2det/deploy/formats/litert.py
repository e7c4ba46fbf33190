"""LiteRT, formerly TensorFlow Lite: a `.tflite` file with a JSON file of the texts beside it."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mbv2det.atomic_write import atomic_write
from mbv2det.deploy.formats.format import Format, write_metadata
from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.output_layer import WHERE


class LiteRtFormat(Format):
    """LiteRT, for Android and single-board computers; the graph takes one image of uint8."""

    name: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    extra: ClassVar[str] = "litert"
    packages: ClassVar[Sequence[str]] = ("litert_torch", "ai_edge_litert")
    precisions: ClassVar[Sequence[str]] = ("fp32",)
    operators: ClassVar[Sequence[str]] = (WHERE,)
    distributions: ClassVar[Sequence[str]] = ("litert-torch", "ai-edge-litert")

    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes the JSON and the `.tflite` file."""
        import litert_torch

        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")  # it reports its progress, and warns of its own
            model = litert_torch.convert(network, (images,))
            with atomic_write(path) as part:
                model.export(str(part))
        write_metadata(path, metadata)
