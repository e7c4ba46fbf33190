"""Core ML: an `.mlpackage` folder, for Apple's devices."""

import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mbv2det.deploy.formats.format import Format
from mbv2det.deploy.graph import ExportedNetwork
from mbv2det.errors import ConfigError
from mbv2det.output_layer import WHERE


class CoreMlFormat(Format):
    """Core ML, converted from PyTorch's exported program.

    The graph takes one image of float32. Only macOS can run the file: elsewhere its description is
    read back, and compared with the network.
    """

    name: ClassVar[str] = "coreml"
    suffix: ClassVar[str] = ".mlpackage"
    extra: ClassVar[str] = "coreml"
    packages: ClassVar[Sequence[str]] = ("coremltools",)
    operators: ClassVar[Sequence[str]] = (WHERE,)
    distributions: ClassVar[Sequence[str]] = ("coremltools",)
    not_run: ClassVar[str] = "only macOS runs Core ML files"

    def write(
        self,
        network: ExportedNetwork,
        images: Tensor,
        path: Path,
        precision: str,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes the folder; one that exists is replaced."""
        import coremltools

        model = _converted(coremltools, network, images.float(), precision)
        model.user_defined_metadata.update(metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            model.save(str(part))
            _check(coremltools.utils.load_spec(str(part)), network, images, path)
            shutil.rmtree(path, ignore_errors=True)
            part.replace(path)


def _converted(coremltools: Any, network: ExportedNetwork, images: Tensor, precision: str) -> Any:
    """Returns the network as a model of coremltools.

    Raises:
        ConfigError: If coremltools cannot convert an operator of the network.
    """
    precisions = {"fp32": coremltools.precision.FLOAT32, "fp16": coremltools.precision.FLOAT16}
    with warnings.catch_warnings(), redirect_stderr(StringIO()):  # it draws progress bars
        warnings.simplefilter("ignore")  # of torch versions that it was not tested with
        program = torch.export.export(network, (images,)).run_decompositions({})
        try:
            return coremltools.convert(
                program,
                outputs=[coremltools.TensorType(name=name) for name in network.names],
                minimum_deployment_target=coremltools.target.iOS16,
                compute_precision=precisions[precision],
                convert_to="mlprogram",
            )
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"--format coreml: coremltools cannot convert the network ({error})"
            ) from None


def _check(spec: Any, network: ExportedNetwork, images: Tensor, path: Path) -> None:
    """Compares the description of a file with the network.

    Raises:
        ConfigError: If inputs, or names or shapes of outputs differ.
    """
    shapes = {
        feature.name: tuple(feature.type.multiArrayType.shape)
        for feature in (*spec.description.input, *spec.description.output)
    }
    expected = {name: tuple(tensor.shape) for name, tensor in network.named(images).items()}
    (given,) = (feature.name for feature in spec.description.input)
    expected[given] = tuple(images.shape)
    if shapes != expected:
        raise ConfigError(f"{path}: expected a file with the tensors {expected}, got {shapes}")
