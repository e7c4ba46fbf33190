"""`study NAME ...`: runs a study of the paper's claims or a comparison with torchvision."""

import ast
import difflib
import sys
from importlib import import_module
from pathlib import Path

from mbv2det.cli.session import one_line_errors
from mbv2det.cli.shipped import shipped_folder
from mbv2det.errors import ConfigError

_USAGE = "usage: mbv2det study NAME ..."


@one_line_errors
def main() -> None:
    """Entry point."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(f"{_USAGE}\n\n{_listing()}\n\nmbv2det study NAME --help explains each.")
        return
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    run_study(name)


def run_study(name: str) -> None:
    """Runs one study with the arguments in `sys.argv[1:]`.

    Args:
        name: Stem of the study's file in tools/studies.

    Raises:
        ConfigError: If there is no such study, or it needs a package that is not installed.
    """
    known = studies()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"study {name}: expected one of {', '.join(known)}{hint}")
    # The files of the folder import one another by bare names, as the scripts that they are.
    sys.path.insert(0, str(_folder()))
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ConfigError(
            f"study {name}: expected matplotlib, which draws its figures, found none; "
            "pip install 'mbv2det[studies]'"
        ) from None
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
