"""`prepare_data ROOT`: finds out what a folder of data is, and writes a configuration for it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mbv2det.console import one_line_errors

_DESCRIPTION = """
Finds format, splits and classes of your own data, says why, and writes a configuration that trains
on it. The data is not changed.

  coco      JSON with images, annotations and categories, also as Roboflow exports it
  voc       XML beside images or in folders of their own, or VOC's folders of index masks
  yolo      text files with boxes or polygons, with data.yaml or classes.txt
  labelme   a JSON file for each image
  cvat      XML of the export "CVAT for images"
  folder    a mask for each image, of label values, by colour or in one channel

Written beside each other: NAME.yaml, the configuration with its reasons as comments; contact sheets
NAME_train_01.jpg and NAME_val_01.jpg with the annotation drawn, to look at before training; and,
where the data has no validation split, NAME_train.txt and NAME_val.txt, the lists of a division of
80 to 20 by chance (--seed) in which near-duplicates and images of one source stay together.

The last line that is printed trains with it.
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", metavar="ROOT", type=Path, help="folder of the data set")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="NAME.yaml",
        help="configuration to write, or a folder for it; by default in the current folder, with "
        "the name of ROOT",
    )
    parser.add_argument(
        "--format",
        choices=("coco", "voc", "yolo", "labelme", "cvat", "folder"),
        help="the format, where a folder has several",
    )
    parser.add_argument(
        "--task",
        choices=("detection", "segmentation", "joint"),
        help="what to learn; by default all that is annotated",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="backbone weights for the configuration: a file, or the name of torchvision's weights",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the division into splits")
    parser.add_argument("--force", action="store_true", help="overwrite an existing configuration")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    from mbv2det.cli.preparing import prepare  # imports torch, which --help does not need

    prepare(options)
