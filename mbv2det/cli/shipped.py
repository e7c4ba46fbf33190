"""Folders of the repository that the wheel carries inside the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_folder(in_wheel: str, in_repository: str) -> Path:
    """Returns the folder of an installed package, or the repository's where it is not installed.

    The wheel renames the folders (`tool.hatch.build.targets.wheel.sources` in pyproject.toml). An
    editable install and a checkout on PYTHONPATH read the repository's own.

    Args:
        in_wheel: Path of the folder in an installed package, relative to the package.
        in_repository: Path of the folder in the repository, relative to its root.
    """
    installed = _PACKAGE / in_wheel
    return installed if installed.is_dir() else _PACKAGE.parent / in_repository
