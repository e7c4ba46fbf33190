"""`show_batch CONFIG`: draws training batches with their targets, as the network gets them."""

import sys
from collections.abc import Sequence

from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors

_DESCRIPTION = """
Draws the first batches of a training with their targets, as PNG pages.

The pages show what the network gets: after reading, augmentation, resizing and padding, before the
network normalises the colours. `train` with the same settings and seed takes these images first.
Look at them before every first training on new data, and after every change of `augment`:

- Is every object in its box, and is its name right? If not, the annotation or data.format is wrong.
- Are objects of a size that can be seen? Those of a few pixels need a larger data.image_size.
- Would you still recognise the objects? If not, the augmentation is too strong.
- Grey boxes and pale parts of masks are ignored: they are neither objects nor background.

Examples:

  mbv2det show_batch ssdlite_voc --data.root=DIR --out pages
  mbv2det show_batch ssdlite_voc --data.root=DIR --out pages --batches 3 \\
    '--augment.transforms=[{class_path: albumentations.Rotate, init_args: {limit: 20}}]'
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option(
        "--out", help="folder of the pages, batch_01.png and so on", default="batches"
    )
    parser.add_option("--batches", type=int, default=1, help="number of batches, one page each")
    settings = parser.parse(sys.argv[1:] if arguments is None else arguments)
    from mbv2det.cli.batches import (
        show_batches,
    )  # imports torch's stack, which --help does not need

    show_batches(settings)
