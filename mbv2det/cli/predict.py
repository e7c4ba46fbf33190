"""`predict --weights FILE INPUT... --out DIR`: pictures and files of what images show."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.console import one_line_errors
from mbv2det.deploy.memory import keep_freed_memory

_DESCRIPTION = """
Finds objects in images, labels their pixels or names the whole image, as the weights can. Writes to
--out:

  pictures/      each image with boxes, names and scores, tinted by label above a legend
  results.json   boxes in COCO's results format: [x, y, width, height] in pixels of the original
                 image, with the class ids of the data set that the weights were trained on
  masks/         an index PNG for each image, with that data set's values and VOC's palette
  classes.json   the top classes of each image as a whole, with their probabilities

No configuration is needed: the weights file carries all it takes.
"""
_MIN_SCORE = 0.3


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: The command line, by default that of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files or folders of them")
    parser.add_argument("--weights", required=True, help="weights, or a file that export wrote")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument(
        "--min-score",
        type=float,
        default=_MIN_SCORE,
        help="draw detections from this score up; results.json has all (default %(default)s)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, ..."
    )
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    keep_freed_memory()
    from mbv2det.deploy.predict_files import predict_files  # --help needs no networks

    predict_files(
        options.weights,
        [Path(path) for path in options.inputs],
        Path(options.out),
        min_score=options.min_score,
        device=options.device,
    )
