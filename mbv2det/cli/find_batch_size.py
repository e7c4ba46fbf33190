"""`find_batch_size CONFIG`: the largest batch whose training step fits into memory."""

import sys
from collections.abc import Sequence

from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors

_DESCRIPTION = """
Prints the largest data.batch_size whose training step fits into the memory of this machine.

On a GPU, steps of growing batches are tried. On a CPU the step's memory is estimated from two small
batches: the result is a bound, not a recommendation, as larger batches are hardly faster there.
After a change of the batch, optim.lr is another one: `mbv2det find_lr CONFIG` proposes it.

  mbv2det find_batch_size ssdlite_voc --data.root=DIR --data.image_size=512
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    settings = parser.parse(sys.argv[1:] if arguments is None else arguments)
    from mbv2det.cli.largest_batch import find_batch_size  # imports torch's stack, unlike --help

    find_batch_size(settings)
