"""`find_lr CONFIG`: a range test of the learning rate, with a picture of the curve."""

import sys
from collections.abc import Sequence

from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors

_DESCRIPTION = """
Trains for a few steps with a learning rate that rises from step to step, draws the loss against it,
and prints the rate at which the loss fell fastest, as a value for optim.lr.

It is a start for a new data set, batch size or optimiser, not the best rate: where the curve is
noisy or has its steepest point at an end, take more steps or other limits. All layers have the same
rate in this test; optim.backbone_lr_mult and optim.pretrained_lr_mult are not applied. Nothing is
written but the picture.

  mbv2det find_lr ssdlite_voc --data.root=DIR --steps 200 --out lr.png
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option("--out", help="PNG file of the curve", default="lr.png")
    parser.add_option("--steps", type=int, default=100, help="number of steps, and of rates")
    parser.add_option("--min-lr", type=float, default=1e-5, help="rate of the first step")
    parser.add_option("--max-lr", type=float, default=1.0, help="rate of the last step")
    settings = parser.parse(sys.argv[1:] if arguments is None else arguments)
    from mbv2det.cli.lr_range import find_lr  # imports torch's stack, which --help does not need

    find_lr(settings)
