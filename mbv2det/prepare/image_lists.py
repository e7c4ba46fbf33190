"""Text files that list the images of a split."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from mbv2det.data.file_lists import listed_name, read_list, without_suffix
from mbv2det.data.images import SUFFIXES
from mbv2det.errors import DataError
from mbv2det.prepare.inventory import Inventory
from mbv2det.prepare.split_words import split_of, with_train

_VOC_FOLDERS = ("ImageSets/Main", "ImageSets/Segmentation")
_COMPARED = 20  # lines of a list


@dataclass(frozen=True)
class ImageLists:
    """The list file of each split.

    Attributes:
        files: Path of the list of each split, relative to the root; there is a train.
        is_of_voc: Whether they are in VOC's folder of lists.
        reasons: Lines that say what was found.
    """

    files: dict[str, str]
    is_of_voc: bool
    reasons: tuple[str, ...]


def find_lists(inventory: Inventory, images: Iterable[str]) -> ImageLists | None:
    """Returns the lists whose lines name the images and whose names are those of splits.

    Args:
        inventory: Files of the data set.
        images: Images that the lists can name, relative to the root.
    """
    stems = {PurePosixPath(image).stem for image in images}
    files: dict[str, str] = {}
    by_preference = sorted(inventory.of((".txt",)), key=lambda file: (not _in_voc(file), file))
    for file in by_preference:
        split = split_of(PurePosixPath(file).stem)
        if split is not None and split not in files and _names_images(inventory, file, stems):
            files[split] = file
    if not {"train", "trainval"} & files.keys():
        return None
    files = with_train(files)
    is_of_voc = all(_in_voc(file) for file in files.values())
    return ImageLists(
        files, is_of_voc, tuple(f"{name}: listed in {f}" for name, f in files.items())
    )


def _in_voc(file: str) -> bool:
    return PurePosixPath(file).parent.as_posix() in _VOC_FOLDERS


def _names_images(inventory: Inventory, file: str, stems: set[str]) -> bool:
    try:
        lines = read_list(inventory.root / file)[:_COMPARED]
    except DataError:
        return False
    names = [PurePosixPath(listed_name(line, stems, SUFFIXES)).name for line in lines]
    return bool(names) and all(without_suffix(name, SUFFIXES) in stems for name in names)
