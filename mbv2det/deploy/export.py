"""Export: a network with its postprocessing, preprocessing and classes as one file."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mbv2det.build import build_tasks
from mbv2det.deploy.formats import DTYPES, INT8, Format
from mbv2det.deploy.graph import ExportedNetwork, GraphInfo, encode_metadata, output_layers
from mbv2det.deploy.graph_input import RESIZE_IMAGE
from mbv2det.deploy.prepare import prepared
from mbv2det.deploy.quantization.quantizer import Calibration
from mbv2det.errors import ConfigError
from mbv2det.model import MultiTaskModel
from mbv2det.tasks import Task
from mbv2det.weights.header import WeightsInfo


@dataclass(frozen=True)
class Export:
    """What to export.

    Attributes:
        model: Trained network.
        info: Header of its weights, with the thresholds and the input size of the file.
        format: Format of the file.
        precision: Precision of weights and features.
        options: Choice of output options, by name of the option; those left out take the first
            choice that the format can express.
        source: Weights file that the network was read from.
        resizes: Whether the graph takes images of any size and resizes them.
        calibration: What an int8 file is quantised with.
    """

    model: MultiTaskModel
    info: WeightsInfo
    format: Format
    precision: str = "fp32"
    options: Mapping[str, str | None] | None = None
    source: Path | None = None
    resizes: bool = False
    calibration: Calibration | None = None


def export(request: Export, path: Path) -> GraphInfo:
    """Writes an exported file.

    Args:
        request: What to export.
        path: File to write.

    Returns:
        The description of the file.

    Raises:
        ConfigError: If the format cannot express what is asked for, a package is missing, or the
            name of the file has another suffix.
    """
    check_export(request, path)
    if request.precision != INT8:
        return _write(request, path)
    if request.calibration is None:
        raise ConfigError("--precision int8: expected calibration images, got none")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / path.name
        graph = _write(replace(request, precision="fp32"), source)
        return quantize(request, source, graph, path, request.calibration)


def check_export(request: Export, path: Path) -> None:
    """Refuses what cannot be exported; arguments and errors as for `export`."""
    kind = request.format
    if not path.name.endswith(kind.suffix):
        raise ConfigError(f"--out: expected a name that ends in {kind.suffix}, got {path}")
    if request.precision not in kind.precisions:
        raise ConfigError(
            f"--precision: expected {' or '.join(kind.precisions)} for {kind.name}, "
            f"got {request.precision}"
        )
    kind.require_packages()
    if request.precision == INT8 and kind.quantizer is not None:
        kind.quantizer.require_packages()


def quantize(
    request: Export, source: Path, graph: GraphInfo, path: Path, calibration: Calibration
) -> GraphInfo:
    """Writes the int8 file of an exported float32 file.

    Args:
        request: What was exported.
        source: The float32 file.
        graph: Its description.
        path: File to write.
        calibration: What it is quantised with.

    Returns:
        The description of the int8 file.
    """
    quantizer = request.format.quantizer
    assert quantizer is not None
    graph = replace(
        graph,
        precision=INT8,
        float_parts=tuple(calibration.float_parts),
        versions={**graph.versions, **quantizer.versions()},
    )
    quantizer.quantize(source, path, calibration, encode_metadata(request.info, graph))
    return graph


def _write(request: Export, path: Path) -> GraphInfo:
    """Writes a file whose precision is that of a float type."""
    kind, info = request.format, request.info
    tasks = build_tasks(info.model, info.eval, info.label_maps)
    choices = chosen_outputs(tasks, kind, request.options or {}, resizes=request.resizes)
    layers = output_layers(tasks, choices)
    dtype = DTYPES[request.precision if request.precision in kind.graph_precisions else "fp32"]
    network = ExportedNetwork(
        prepared(request.model.cpu(), dtype), layers, info.preprocess, resizes=request.resizes
    ).eval()
    for module in network.modules():
        if hasattr(module, "inplace"):  # exporters spell an activation in place in many steps
            setattr(module, "inplace", False)  # noqa: B010  # only some modules have it
    # Two images: an example of one would make torch.export take the batch for a constant.
    count = 2 if kind.dynamic_batch else 1
    height, width = info.preprocess.size
    if request.resizes:  # of no size that torch.export could take for that of the network input
        height, width = height + 7, width + 11
    images = torch.zeros((count, 3, height, width), dtype=torch.uint8)
    graph = GraphInfo(
        format=kind.name,
        precision=request.precision,
        choices=choices,
        outputs=network.names,
        dynamic_batch=kind.dynamic_batch,
        resizes=request.resizes,
        constants=network.constants(images),
        source="" if request.source is None else request.source.name,
        sha256="" if request.source is None else _sha256(request.source),
        versions=kind.versions(),
    )
    kind.write(network, images, path, request.precision, encode_metadata(info, graph))
    return graph


def without_views(info: WeightsInfo) -> WeightsInfo:
    """Returns the header without augmentation at test time, which exported files do not have."""
    return replace(info, eval=replace(info.eval, scales=(1.0,), flip=False))


def chosen_outputs(
    tasks: Sequence[Task],
    kind: Format,
    options: Mapping[str, str | None],
    *,
    resizes: bool = False,
) -> dict[str, str]:
    """Returns the choice of each task's output option, by task name.

    Args:
        tasks: Tasks of the network.
        kind: Format of the file.
        options: The user's choices, by name of the option.
        resizes: Whether the graph takes images of any size and resizes them.

    Raises:
        ConfigError: If the format cannot express a choice, or no task has the option.
    """
    if resizes and RESIZE_IMAGE not in kind.operators:
        raise ConfigError(f"--resize: {kind.name} files cannot resize images; onnx files can")
    known = {task.output_option.name for task in tasks if task.output_option is not None}
    for name, choice in options.items():
        if choice is not None and name not in known:
            raise ConfigError(f"--{name}: expected weights with such a head, got none")
    choices = {}
    for task in tasks:
        option = task.output_option
        if option is None:
            choices[task.name] = ""
            continue
        layers = {choice: task.output_layer(choice) for choice in option.choices}
        expressible = [
            choice
            for choice, layer in layers.items()
            if set(layer.operators) <= set(kind.operators)
            and (layer.in_original_pixels or not resizes)
        ]
        choice = options.get(option.name) or expressible[0]
        if choice not in expressible:
            raise ConfigError(
                f"--{option.name}: expected {' or '.join(expressible)} for {kind.name}"
                f"{' with --resize' if resizes else ''}, got {choice}"
            )
        choices[task.name] = choice
    return choices


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
