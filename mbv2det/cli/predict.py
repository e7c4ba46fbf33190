"""`predict --weights FILE INPUT... --out DIR`: pictures and files of what images show."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.console import one_line_errors
from mbv2det.deploy.memory import keep_freed_memory
from mbv2det.errors import ConfigError

_DESCRIPTION = """
Finds objects in images, labels their pixels or names the whole image, as the weights can. No
configuration is needed: the weights file carries all it takes.

INPUT is any number of
  photo.jpg          an image or video file
  photos/            a folder; images and videos in it at any depth, hidden files left out
  'photos/*/a*.jpg'  a glob; ** matches folders of any depth
  camera:0           a camera by its number; Ctrl-C ends it
  rtsp://host/live   a stream by its address

Results in --out, of the kinds that --formats names:
  pictures  pictures/NAME.jpg, with boxes, names and scores, tinted by label above a legend;
            videos/NAME.mp4 for a video
  json      results.json: boxes in COCO's results format, [x, y, width, height] in pixels of the
            original image, with names of file and class, and the number of the frame in a video;
            all candidates, whatever their score. classes.json: the top classes of whole images
  masks     masks/NAME.png: index PNGs with the data set's values and VOC's palette; masks.csv: the
            classes in each, with their values and numbers of pixels
  csv       results.csv: a detection a row
  yolo      yolo/labels/NAME.txt: boxes as labels to train YOLO with, yolo/classes.txt
NAME is the path below the input, so that equal names in two folders stay apart.
"""
_EXAMPLES = """
examples:
  predict --weights best.safetensors photo.jpg --out predictions
  predict --weights best.safetensors photos/ --out predictions --classes dog,person --min-score 0.5
  predict --weights best.safetensors clip.mp4 --out predictions --batch-size 16
  predict --weights best.safetensors aerial.tif --out predictions --tiles 3x4
  predict --weights best.safetensors photos/ --out predictions --formats csv,json

A file that cannot be read is named and left out, and the exit code is then 1. An interrupt (Ctrl-C)
leaves everything predicted so far in valid files; its exit code is 130.
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: The command line, by default that of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    options = _parser(prog).parse_args(sys.argv[1:] if arguments is None else arguments)
    size = None if options.image_size is None else _image_size(options.image_size)
    if not 0 <= options.min_score <= 1:
        raise ConfigError(f"--min-score: expected a score from 0 to 1, got {options.min_score}")
    if options.batch_size is not None and options.batch_size < 1:
        raise ConfigError(f"--batch-size: expected at least 1, got {options.batch_size}")
    keep_freed_memory()
    # Imported here: --help needs no networks.
    from mbv2det.deploy.predict_files import PredictOptions, predict_files
    from mbv2det.deploy.tiles import Tiling

    tiling = Tiling.of_options(options.tiles, options.tile_overlap)
    unreadable = predict_files(
        options.weights,
        options.inputs,
        Path(options.out),
        PredictOptions(
            min_score=options.min_score,
            classes=_names(options.classes),
            image_size=size,
            batch_size=options.batch_size,
            formats=_names(options.formats),
            tiling=tiling,
            device=options.device,
        ),
    )
    if unreadable:
        sys.exit(1)


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="images, folders, globs, videos, cameras")
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="weights, or a file that export wrote; or weights from elsewhere: a release of "
        "TensorFlow's such as ssdlite_mobilenet_v2_coco_2018_05_09, OWNER/NAME of the Hugging Face "
        "Hub, an address https://...",
    )
    add("--out", required=True, metavar="DIR", help="folder to write to")
    add(
        "--min-score",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="lowest score of detections in pictures, csv and yolo (default %(default)s)",
    )
    add("--classes", metavar="NAMES", help="keep these classes alone: dog,person")
    add("--formats", metavar="NAMES", help="results to write (default pictures,json,masks)")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="images that the network sees at once (default 1 on a processor, 16 on a GPU)",
    )
    add(
        "--image-size",
        metavar="SIZE",
        help="size of the network input, 320 or HEIGHTxWIDTH, in place of that of the weights",
    )
    _add_tile_options(parser)
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, ...")
    return parser


def _add_tile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tiles",
        metavar="TILES",
        help="detect small objects: see the image whole and in ROWSxCOLUMNS tiles, or in tiles of "
        "this side in pixels, and merge the detections",
    )
    parser.add_argument(
        "--tile-overlap",
        type=float,
        metavar="SHARE",
        help="share of a tile that it has in common with the next (default 0.2); objects up to "
        "this size are whole in one tile",
    )


def _names(text: str | None) -> tuple[str, ...] | None:
    """The names in a list with commas."""
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _image_size(text: str) -> tuple[int, int]:
    """(height, width) from one number or `HEIGHTxWIDTH`.

    Raises:
        ConfigError: For anything else.
    """
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if match is None:
        raise ConfigError(f"--image-size: expected 320 or HEIGHTxWIDTH in pixels, got {text}")
    return int(match[1]), int(match[2] or match[1])
