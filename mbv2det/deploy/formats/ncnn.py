"""ncnn: a `.param` file with a `.bin` file beside it, and a JSON file with the texts."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mbv2det.deploy.formats.format import Format, write_metadata
from mbv2det.deploy.formats.onnx import OnnxFormat, onnx_program
from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.errors import ConfigError


class NcnnFormat(Format):
    """ncnn, for phones and single-board computers; converted from the ONNX graph by pnnx.

    The graph takes one image of float32: ncnn has no features of uint8. The weights of an fp16 file
    are stored as fp16; a processor with fp16 arithmetic computes in it.
    """

    name: ClassVar[str] = "ncnn"
    suffix: ClassVar[str] = ".param"
    extra: ClassVar[str] = "ncnn"
    packages: ClassVar[Sequence[str]] = ("ncnn", "pnnx", *OnnxFormat.packages)
    distributions: ClassVar[Sequence[str]] = ("ncnn", "pnnx", *OnnxFormat.distributions)

    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes the `.bin`, the JSON and the `.param` file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            folder = Path(name)
            graph = onnx_program(network, images.float(), dynamic_batch=False)
            graph.save(folder / "graph.onnx", external_data=False)
            _convert(folder, images.shape, precision)
            (folder / "graph.ncnn.bin").replace(path.with_suffix(".bin"))
            write_metadata(path, metadata)
            (folder / "graph.ncnn.param").replace(path)


def _convert(folder: Path, shape: Sequence[int], precision: str) -> None:
    """Runs pnnx on `graph.onnx` in a folder, where it writes its files."""
    import pnnx

    arguments = [
        f"inputshape={list(shape)}f32".replace(" ", ""),
        f"fp16={int(precision == 'fp16')}",
    ]
    done = subprocess.run(
        [pnnx.EXEC_PATH, "graph.onnx", *arguments], cwd=folder, capture_output=True, text=True
    )
    if done.returncode or not (folder / "graph.ncnn.param").is_file():
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ConfigError(f"--format ncnn: pnnx cannot convert the network ({' '.join(reason)})")
