"""`check_data CONFIG`: finds every fault of a data set in one pass."""

import sys
from collections.abc import Sequence

from mbv2det.cli.settings import SettingsParser
from mbv2det.console import one_line_errors

_DESCRIPTION = """
Finds every fault of the training and the validation split of a configuration in one pass: files,
annotations, classes, and images in both splits. The data is not changed.

The exit code is 1 if there are faults, 0 if not; remarks are no faults.
"""


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Name of the command in its messages; by default that of the running script.
    """
    parser = SettingsParser(_DESCRIPTION, prog=prog)
    parser.add_option("--json", help="write every finding to this JSON file")
    parser.add_option(
        "--pictures", help="write pages of images with their annotation to this folder"
    )
    parser.add_option(
        "--fix",
        help="write a copy of the data set to this new folder, without what is certainly wrong",
    )
    settings = parser.parse(sys.argv[1:] if arguments is None else arguments)
    from mbv2det.cli.checking import check  # imports torch's stack, which --help does not need

    sys.exit(1 if check(settings).faults else 0)
