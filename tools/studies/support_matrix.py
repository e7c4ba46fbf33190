"""What each export format can hold, by exporting and running it: the table of deploy/README.md.

    mbv2det study support_matrix [--write]

Small networks with random weights are exported for every format, precision, head and output option
that mbv2det offers, run in the format's own runtime, and compared with PyTorch. A cell is the
largest difference of a score, a probability or a logit (for a class map, the share of the pixels of
another class); a dash is what the format refuses, and "not run" a file that was only converted. A
format whose packages are missing is left out. `--write` replaces the table in the file.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from mbv2det.build import build_model
from mbv2det.console import log, one_line_errors
from mbv2det.deploy.check import output_differences
from mbv2det.deploy.export import Export, export
from mbv2det.deploy.formats import FORMATS
from mbv2det.deploy.load import load_graph
from mbv2det.deploy.quantization.quantizer import Calibration
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.model import MultiTaskModel
from mbv2det.model_config import BackboneConfig, ModelConfig, head_names
from mbv2det.preprocess import PreprocessSpec
from mbv2det.tasks import TASKS
from mbv2det.weights.header import WeightsInfo

_SIZE = (65, 97)
_NUM_CALIBRATION = 8  # images that int8 is calibrated with
_README = Path(__file__).parents[2] / "mbv2det/deploy/README.md"
_START, _END = "<!-- support matrix -->", "<!-- end of the support matrix -->"
_LABELS = ("background", "cat", "dog", "cow")


def rows() -> Iterator[tuple[str, str, WeightsInfo]]:
    """Yields the name of each head, the choice of its output option, and a network with it."""
    for name, task in TASKS.items():
        choices = list(task.output_option.choices) if task.output_option else [""]
        for kind in task.head_kinds:
            for head_name in head_names(kind):
                model = ModelConfig(BackboneConfig(width_mult=0.1), {name: kind(name=head_name)})
                info = WeightsInfo(model, PreprocessSpec(_SIZE), {name: LabelMap.of_masks(_LABELS)})
                for choice in choices:
                    yield head_name, choice, info


def random_model(info: WeightsInfo) -> MultiTaskModel:
    """Returns a network whose signal keeps its scale, unlike one that is about to be trained."""
    torch.manual_seed(0)
    model = build_model(info.model, info.preprocess, info.label_maps).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return model


def cell(info: WeightsInfo, format: str, precision: str, choice: str, folder: Path) -> str:
    """Exports and runs one network; returns its difference from PyTorch, or a dash."""
    model = random_model(info)
    (task,) = (TASKS[name] for name in info.model.tasks)
    options = {task.output_option.name: choice} if task.output_option else {}
    path = folder / f"model{FORMATS[format].suffix}"
    request = Export(model, info, FORMATS[format], precision, options)
    try:
        export(replace(request, calibration=Calibration(_images(_NUM_CALIBRATION))), path)
    except ConfigError as error:
        if "the package" in str(error):
            raise
        return "-"
    if FORMATS[format].not_run:
        return "not run"
    differences = output_differences(model, load_graph(path), _images(3).split(1))
    differences.pop("boxes", None)  # in pixels
    differences.pop("without partner", None)
    return f"{max(differences.values()):.0e}"


def _images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, *_SIZE), dtype=torch.uint8)


def installed(formats: Sequence[str]) -> list[str]:
    """Returns the formats whose packages are installed; reports those that are left out."""
    left_out = {
        name: missing
        for name in formats
        if (missing := [p for p in FORMATS[name].packages if find_spec(p) is None])
    }
    for name, missing in left_out.items():
        log(f"{name}: left out, {', '.join(missing)} missing (mbv2det[{FORMATS[name].extra}])")
    return [name for name in formats if name not in left_out]


def table(formats: Sequence[str]) -> Iterator[str]:
    """Yields the lines of the table, in Markdown.

    Args:
        formats: Names of the formats.
    """
    columns = [(name, precision) for name in formats for precision in FORMATS[name].precisions]
    yield "| head | output | " + " | ".join(f"{name} {p}" for name, p in columns) + " |"
    yield "|---" * (len(columns) + 2) + "|"
    with tempfile.TemporaryDirectory() as folder:
        for head, choice, info in rows():
            cells = [cell(info, name, p, choice, Path(folder)) for name, p in columns]
            log(f"{head} {choice}: {', '.join(cells)}")
            yield f"| {head} | {choice or 'probabilities'} | " + " | ".join(cells) + " |"


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it into the file if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--write", action="store_true", help="replace the table of the README")
    options = parser.parse_args(arguments)
    lines = "\n".join(table(installed(options.formats)))
    print(lines)
    if options.write:
        text = _README.read_text()
        before, after = text.split(_START)[0], text.split(_END)[1]
        _README.write_text(f"{before}{_START}\n\n{lines}\n\n{_END}{after}")


if __name__ == "__main__":
    main()
