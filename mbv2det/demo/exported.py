"""The network of a demo: weights are exported, a file that was exported is checked."""

import shutil
from pathlib import Path

from mbv2det.build import load_network
from mbv2det.deploy.export import Export, check_export, export, without_views
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.graph import GraphInfo
from mbv2det.deploy.load import is_exported, load_graph
from mbv2det.errors import ConfigError
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.readers import read_model

_HOW_TO_EXPORT = "mbv2det export --weights FILE --format onnx --resize --out model.onnx"


def write_network(file: Path, out: Path) -> tuple[WeightsInfo, GraphInfo]:
    """Writes the ONNX file of a demo, which takes images of any size.

    Args:
        file: Weights, or an ONNX file that was exported with `--resize`.
        out: ONNX file to write.

    Returns:
        The header of the weights, and the description of the graph.

    Raises:
        ConfigError: If the file is missing or of another kind, or a package is missing.
    """
    if file.suffix == ".onnx":
        return _copy(file, out)
    if is_exported(file):
        raise ConfigError(
            f"--weights: expected weights or an ONNX file, got {file}; export the weights with: "
            f"{_HOW_TO_EXPORT}"
        )
    return _export(file, out)


def _copy(file: Path, out: Path) -> tuple[WeightsInfo, GraphInfo]:
    runtime = load_graph(file, device="cpu", threads=1)
    if not runtime.graph.resizes:
        raise ConfigError(
            f"--weights: expected an ONNX file that takes images of any size, got {file} with a "
            f"fixed size; export it again with: {_HOW_TO_EXPORT}"
        )
    shutil.copyfile(file, out)
    return runtime.info, runtime.graph


def _export(file: Path, out: Path) -> tuple[WeightsInfo, GraphInfo]:
    weights = read_model(file)
    info = without_views(weights.info)
    if not info.model.tasks:
        raise ConfigError(f"--weights: expected a head, got a backbone alone in {file}")
    # The page suppresses overlapping boxes itself, so that a visitor can choose the overlap.
    options = {"nms": "none"} if "detection" in info.model.tasks else {}
    model, _ = load_network(weights)
    request = Export(
        model.eval(), info, FORMATS["onnx"], options=options, source=file, resizes=True
    )
    check_export(request, out)
    return info, export(request, out)
