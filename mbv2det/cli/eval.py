"""`eval CONFIG --weights FILE`: measures weights on a data set."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.cli.config_files import best_weights
from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.errors import ConfigError

_DESCRIPTION = """
Measures weights on the validation split of a configuration.

--weights FILE is a .safetensors or .ckpt file, one that export wrote, or weights from elsewhere: a
release of TensorFlow's, OWNER/NAME of the Hugging Face Hub, an address https://.... Architecture,
preprocessing, classes and thresholds are those stored in it; CONFIG gives the data and the tasks.
eval.*, data.image_size, data.resize and backbone.output_stride on the command line override the
settings stored with weights; an exported file keeps what it was exported with.

CONFIG may be the folder of a run: without --weights its best weights are measured.
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option("--out", help="write the metrics to this JSON file")
    parser.add_option("--report", help="write a report to this HTML file: errors and their causes")
    parser.add_option(
        "--tiles",
        help="measure predict's --tiles: each image whole and in ROWSxCOLUMNS tiles, or in tiles "
        "of a side in pixels; needs the extra supervision",
    )
    parser.add_option(
        "--tile-overlap", type=float, help="share of a tile in common with the next (default 0.2)"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = parser.parse(given)
    best = best_weights(given[0])
    if "weights" not in settings.given and best is not None:
        settings = parser.parse([*given, f"--weights={best}"])
    if "weights" not in settings.given:
        raise ConfigError("--weights: expected the .safetensors or .ckpt file to measure, got none")
    keep_freed_memory()
    from mbv2det.cli.evaluation import evaluate  # imports Lightning, which --help does not need

    path = settings.options.report
    measured = evaluate(settings, settings.options.out, recorded=path is not None)
    if path is not None:
        from mbv2det.cli.reporting import report

        report(Path(path), [settings], [measured], command="eval")
