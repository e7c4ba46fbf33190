"""`study NAME ...`: runs a study of the paper's claims or a comparison with torchvision."""

import ast
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mbv2det.cli.shipped import shipped_folder
from mbv2det.console import one_line_errors
from mbv2det.errors import ConfigError

_USAGE = "usage: mbv2det study NAME ..."


@one_line_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        arguments: Arguments of the command; by default those of the process.
        prog: Not used, since studies have their own names in messages.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(f"{_USAGE}\n\n{_listing()}\n\nmbv2det study NAME --help explains each.")
        return
    run_study(name, rest)


def run_study(name: str, arguments: Sequence[str]) -> None:
    """Runs one study.

    Args:
        name: Stem of the study's file in tools/studies.
        arguments: Command line of the study.

    Raises:
        ConfigError: If there is no such study, or it needs a package that is not installed.
    """
    known = studies()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"study: expected one of {', '.join(known)}, got {name!r}{hint}")
    # The files are scripts, which import each other by bare names.
    sys.path.insert(0, str(_folder()))
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ConfigError(
            f"study {name}: expected matplotlib for the figures, found none; "
            "pip install 'mbv2det[studies]'"
        ) from None
    # A study is a script, which reads the command line of the process.
    sys.argv = [str(_folder() / f"{name}.py"), *arguments]
    module.main()


def studies() -> dict[str, str]:
    """Returns the first line of every study's description by name, in alphabetical order."""
    trees = {path.stem: ast.parse(path.read_text()) for path in sorted(_folder().glob("*.py"))}
    return {
        name: (ast.get_docstring(tree) or "").partition("\n")[0]
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    }


def _folder() -> Path:
    return shipped_folder("studies", "tools/studies")


def _listing() -> str:
    return "\n".join(f"  {name:18}{line}" for name, line in studies().items())
