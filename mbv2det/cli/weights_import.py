"""Import of weights of other libraries: reading, comparison with their own network, writing."""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mbv2det.build import load_network
from mbv2det.console import log
from mbv2det.counting import count_parameters
from mbv2det.data.file_lists import read_list
from mbv2det.errors import ConfigError, DataError
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.tasks import Task
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.huggingface import read_hf
from mbv2det.weights.location import local_path
from mbv2det.weights.readers import read_folder, read_model
from mbv2det.weights.share_file import save_weights
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.tensorflow import read_tensorflow
from mbv2det.weights.timm import read_timm
from mbv2det.weights.torchvision import read_torchvision

_READERS: dict[str, Callable[[str], WeightsSource]] = {
    "torchvision": read_torchvision,
    "timm": read_timm,
    "hf": lambda source: read_folder(Path(source)) if Path(source).is_dir() else read_hf(source),
    "tf": read_tensorflow,
    "ckpt": lambda source: read_model(Path(source)),
}
_TOLERANCE = 1e-3  # relative difference; another order of sums differs by about 1e-6


def import_weights(format: str, source: str, out: Path, labels: Path | None = None) -> None:
    """Reads weights, checks them against their own network, and writes them as a share file.

    Args:
        format: Library of the weights: a key of `_READERS`.
        source: File, folder or name of the weights, or what `local_path` takes for one of these.
        out: File to write.
        labels: File with a class name per line.

    Raises:
        ConfigError: If the source is not of this format; nothing is written then.
    """
    if format not in _READERS:
        near = difflib.get_close_matches(format, _READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"FORMAT: expected one of {', '.join(_READERS)}, got {format!r}{hint}")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out: expected a name that ends in .safetensors, got {out}")
    if out.is_dir() or any(p.exists() and not p.is_dir() for p in out.parents):
        raise ConfigError(f"--out: expected a file in a folder, got {out}")
    weights = replace(_READERS[format](str(local_path(source))), source=source)
    if labels is not None:
        weights = replace(weights, info=named(weights.info, labels))
    info = weights.info
    model, tasks = load_network(weights)
    model.eval()
    for note in weights.notes:
        log(note)
    log(check(weights, model, tasks))
    save_weights(out, model.state_dict(), info)
    describe(info, model, len(weights.tensors))
    log(f"weights: {out}")


def named(info: WeightsInfo, names_file: Path) -> WeightsInfo:
    """Returns the header with the class names of a file instead of those of the source.

    Raises:
        ConfigError: If there is no such file, or it has a wrong number of names or a name twice.
    """
    if not names_file.is_file():
        raise ConfigError(f"--labels: expected a file of names, found none at {names_file}")
    names = tuple(read_list(names_file))
    if len(info.label_maps) != 1:
        raise ConfigError(f"--labels: expected weights of one head, got {len(info.label_maps)}")
    ((task, label_map),) = info.label_maps.items()
    if len(names) != len(label_map):
        raise ConfigError(
            f"--labels: {names_file}: expected {len(label_map)} names, one per line, "
            f"got {len(names)}"
        )
    try:
        return replace(info, label_maps={task: LabelMap(names, label_map.ids)})
    except DataError as error:
        raise ConfigError(f"--labels: {names_file}: {error}") from None


@torch.inference_mode()
def check(source: WeightsSource, model: MultiTaskModel, tasks: Sequence[Task]) -> str:
    """Compares the outputs with those of the source's own network, if that can be run.

    Args:
        source: Weights as read from the source.
        model: This toolkit's network with the weights, in evaluation mode.
        tasks: Tasks of the network: one, or none for a backbone alone.

    Returns:
        A line about the comparison.

    Raises:
        ConfigError: If the outputs differ, or are not finite.
    """
    size = source.info.preprocess.size
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    features = model.backbone(images)
    outputs = list(features.values())[-1]
    for task in tasks:
        outputs = task.raw_tensor(model.heads[task.name](features, size))
    scale = outputs.abs().max().item()
    if not math.isfinite(scale):
        raise ConfigError(
            f"{source.source}: expected finite outputs for a random image, got infinite or NaN ones"
        )
    if source.reference is None:
        return (
            "check: every tensor matches; outputs are not compared, since the source's own network "
            "cannot be run here"
        )
    difference = (outputs - source.reference(images)).abs().max().item()
    line = (
        f"outputs for a random image, of up to {scale:.2g}, differ by at most {difference:.1e} "
        "from those of the source's own network"
    )
    if not difference <= _TOLERANCE * scale:
        raise ConfigError(f"{source.source}: {line}: expected at most {_TOLERANCE * scale:.1e}")
    return f"check: {line}"


def describe(info: WeightsInfo, model: MultiTaskModel, tensors: int) -> None:
    """Prints what was imported, as a table on standard output."""
    backbone, spec = info.model.backbone, info.preprocess
    table = Table(show_header=False)
    table.add_row("backbone", f"{backbone.name}, width {backbone.width_mult}")
    for task in info.model.tasks:
        names = info.label_maps[task].names
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        table.add_row(task, f"{len(names)} classes: {shown}")
    table.add_row("parameters", f"{count_parameters(model):,} in {tensors} tensors of the source")
    table.add_row("padding", f"{backbone.padding}; batch norm's epsilon {backbone.norm_eps}")
    table.add_row("input", f"{spec.size[0]} x {spec.size[1]}, {spec.resize}")
    table.add_row("mean, std", f"{spec.mean}, {spec.std}")
    Console().print(table)
