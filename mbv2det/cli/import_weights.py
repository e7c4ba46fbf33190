"""`import_weights FORMAT SOURCE --out FILE`: weights of other libraries as a file of ours."""

import argparse
import difflib
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mbv2det.cli.session import one_line_errors, say
from mbv2det.counting import count_parameters
from mbv2det.data.file_lists import read_list
from mbv2det.deploy.predictor import assemble
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.errors import ConfigError, DataError
from mbv2det.labels import LabelMap
from mbv2det.model import DensePredictor
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.weights.huggingface import read_hf
from mbv2det.weights.readers import read_model
from mbv2det.weights.share_file import WeightsInfo, save_weights
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.tensorflow import read_tensorflow
from mbv2det.weights.timm import read_timm
from mbv2det.weights.torchvision import read_torchvision

_READERS: dict[str, Callable[[str], WeightsSource]] = {
    "torchvision": read_torchvision,
    "timm": read_timm,
    "hf": read_hf,
    "tf": read_tensorflow,
    "ckpt": lambda source: read_model(Path(source)),
}
_TOLERANCE = 1e-3  # of the check, relative; sums in another order differ by 1e-6 or so

_DESCRIPTION = """
Turns weights of other libraries into one file of ours, which carries architecture, preprocessing
and labels: evaluate, predict or fine-tune with it and set nothing by hand.

FORMAT       SOURCE
torchvision  a state dict of mobilenet_v2, resnet50 or resnet101, or the name of its weights:
             MobileNet_V2_Weights.IMAGENET1K_V2
timm         a state dict of mobilenetv2_035 ... mobilenetv2_140, or such a name
hf           a folder (or a file of weights alone) of MobileNetV2ForImageClassification,
             MobileNetV2ForSemanticSegmentation or MobileNetV2Model
tf           an .npz of TensorFlow's variables, or a checkpoint's prefix where tensorflow is
             installed: slim's MobileNetV1 and V2, the Object Detection API's SSDLite on
             MobileNetV2, DeepLab with any ASPP
ckpt         a checkpoint of a training run of this toolkit: its averaged weights

Every tensor must find its place; what does not is listed and nothing is written. Nothing in SOURCE
is executed. Then:

  python tools/predict.py --weights FILE photo.jpg --out predictions
  python tools/train.py CONFIG --weights=FILE            a whole model, for the same or new classes
  python tools/train.py CONFIG --backbone.weights=FILE   its backbone alone
"""


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", metavar="FORMAT", help=", ".join(_READERS))
    parser.add_argument("source", metavar="SOURCE", help="file, folder or name")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="file to write")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of the classes, one a line, where the source has none: boxes' without "
        "background, masks' from value 0 on",
    )
    options = parser.parse_args(sys.argv[1:])
    names = Path(options.labels) if options.labels else None
    import_weights(options.format, options.source, Path(options.out), names)


def import_weights(format: str, source: str, out: Path, labels: Path | None = None) -> None:
    """Reads, checks and writes.

    Args:
        format: Library that the weights come from.
        source: File, folder or name.
        out: File to write.
        labels: File of names, one a line.

    Raises:
        ConfigError: For anything that is not what `format` promises; nothing is written then.
    """
    if format not in _READERS:
        near = difflib.get_close_matches(format, _READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"FORMAT: expected one of {', '.join(_READERS)}, got {format!r}{hint}")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out: expected a name that ends in .safetensors, got {out}")
    if out.is_dir() or any(p.exists() and not p.is_dir() for p in out.parents):
        raise ConfigError(f"--out: expected a file in a folder, got {out}")
    foreign = _READERS[format](source)
    if labels is not None:
        foreign = replace(foreign, info=named(foreign.info, labels))
    info = foreign.info
    model = assemble(foreign).eval()
    for note in foreign.notes:
        say(note)
    say(check(foreign, model))
    save_weights(out, model.state_dict(), info)
    describe(info, model, len(foreign.tensors))
    say(f"weights: {out}")


def named(info: WeightsInfo, names_file: Path) -> WeightsInfo:
    """The header with the names of a file in place of those of the source.

    Raises:
        ConfigError: If there is no such file, or it has another number of names, or one twice.
    """
    if not names_file.is_file():
        raise ConfigError(f"--labels: expected a file of names, found none at {names_file}")
    names = tuple(read_list(names_file))
    if len(info.label_maps) != 1:
        raise ConfigError(f"--labels: expected weights of one head, got {len(info.label_maps)}")
    ((task, labels),) = info.label_maps.items()
    if len(names) != len(labels):
        raise ConfigError(
            f"--labels: {names_file}: expected {len(labels)} names, one a line, got {len(names)}"
        )
    try:
        return replace(info, label_maps={task: LabelMap(names, labels.ids)})
    except DataError as error:
        raise ConfigError(f"--labels: {names_file}: {error}") from None


@torch.inference_mode()
def check(foreign: WeightsSource, model: DensePredictor) -> str:
    """Compares the outputs with those of the source's own network, where it can be run here.

    Raises:
        ConfigError: If they differ, or are no numbers.
    """
    size = foreign.info.preprocess.size
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    features = model.backbone(images)
    found = list(features.values())[-1]
    for head in model.heads.values():
        found = raw(head(features, size))
    scale = found.abs().max().item()
    if not math.isfinite(scale):
        raise ConfigError(f"{foreign.source}: expected finite outputs for a random image, got none")
    if foreign.reference is None:
        return "check: every tensor has its place; no network of the source's own to compare with"
    difference = (found - foreign.reference(images)).abs().max().item()
    line = (
        f"outputs for a random image, of up to {scale:.2g}, differ by at most {difference:.1e} "
        "from the source's own"
    )
    if not difference <= _TOLERANCE * scale:
        raise ConfigError(f"{foreign.source}: {line}: expected {_TOLERANCE} of them")
    return f"check: {line}"


def raw(outputs: SSDOutputs | SegmentationOutputs | Tensor) -> Tensor:
    """What a head computes, as one tensor."""
    if isinstance(outputs, SSDOutputs):
        return torch.cat([outputs.logits, outputs.deltas], dim=-1)
    return outputs.logits if isinstance(outputs, SegmentationOutputs) else outputs


def describe(info: WeightsInfo, model: DensePredictor, tensors: int) -> None:
    """What was imported, as a table on standard output."""
    backbone, spec = info.model.backbone, info.preprocess
    table = Table(show_header=False)
    table.add_row("backbone", f"{backbone.name}, width {backbone.width_mult}")
    for task in info.model.heads.tasks:
        names = info.label_maps[task].names
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        table.add_row(task, f"{len(names)} classes: {shown}")
    table.add_row("parameters", f"{count_parameters(model):,} in {tensors} tensors of the source")
    table.add_row("padding", f"{backbone.padding}; batch norm's epsilon {backbone.norm_eps}")
    table.add_row("input", f"{spec.size[0]} x {spec.size[1]}, {spec.resize}")
    table.add_row("mean, std", f"{spec.mean}, {spec.std}")
    Console().print(table)
