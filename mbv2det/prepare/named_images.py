"""The folder of images that the names in an annotation file are relative to."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from mbv2det.data.annotations import evenly_spaced
from mbv2det.data.file_lists import find_file
from mbv2det.prepare.inventory import Inventory, folder_of
from mbv2det.prepare.split_words import split_of_path

_COMPARED = 20  # names of an annotation file


def folder_of_names(inventory: Inventory, names: Sequence[str], file: str) -> str | None:
    """Returns the folder, relative to the root, below which images have some names.

    Of several folders, that of the same split as the annotation file is preferred, then that of the
    file itself, then one where the names are paths as they are written.

    Args:
        inventory: Files of the data set.
        names: Names of images as an annotation file has them.
        file: The annotation file, relative to the root.
    """
    if not names:
        return None
    own = folder_of(file)
    some = [names[index] for index in evenly_spaced(len(names), _COMPARED)]
    folders = {own, "."}
    for folder in {folder_of(image) for image in inventory.images}:
        folders |= {folder, *(parent.as_posix() for parent in PurePosixPath(folder).parents)}
    fitting = {folder: _num_as_written(inventory, folder, some) for folder in folders}
    found = [folder for folder, count in fitting.items() if count is not None]
    split = split_of_path(file)
    return min(
        found,
        key=lambda folder: (
            split_of_path(folder) != split,
            folder != own,
            -(fitting[folder] or 0),
            folder,
        ),
        default=None,
    )


def _num_as_written(inventory: Inventory, folder: str, names: Sequence[str]) -> int | None:
    """Returns the number of names that are paths below a folder; None if one is not found."""
    count = 0
    for name in names:
        found = find_file(inventory.root / folder, name, inventory.root)
        if found is None:
            return None
        count += found == name
    return count
