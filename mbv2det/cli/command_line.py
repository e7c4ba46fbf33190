"""Command lines as they are stored in files that others may get."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

# An absolute path: alone, as a value, or within a list or a mapping.
_ABSOLUTE = re.compile(r"""(?<![^\s=\[{(,'"])/[^,\]})'"]*""")


def command_line(command: str, arguments: Sequence[str]) -> str:
    """Returns a running command; absolute paths are cut to their last name.

    Args:
        command: Name of the command.
        arguments: Its arguments.
    """
    return f"mbv2det {command} {shlex.join(without_folders(a) for a in arguments)}"


def without_folders(text: str) -> str:
    """Returns a text with absolute paths cut to their last name.

    They would reveal the folders of the author of a file.
    """
    return _ABSOLUTE.sub(lambda path: Path(path[0]).name, text)
