"""Index masks paired with images by name: VOC's segmentation data, and plain folders of masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbv2det.data.annotations import Annotations, FaultCounts
from mbv2det.data.file_lists import files_by_stem, listed_name, read_list
from mbv2det.data.images import SUFFIXES
from mbv2det.data.index_masks import IndexMasks
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap


@dataclass(frozen=True)
class MaskSource:
    """Folders and list file of some images with masks.

    Attributes:
        images: Folder of the image files.
        masks: Folders of index images with the same names; an earlier folder takes precedence. All
            but the first folder may be missing.
        list_file: Text file with one image name per line; None for every image.
    """

    images: Path
    masks: tuple[Path, ...]
    list_file: Path | None


@dataclass(frozen=True)
class _MaskedImage:
    """One image with its mask.

    Attributes:
        name: Path relative to the folder of images, without suffix.
        image: Path of the image file.
        mask: Path of the mask file.
    """

    name: str
    image: str
    mask: str


def read_masks(
    sources: Sequence[MaskSource],
    label_map: LabelMap,
    ignore_value: int | None,
    *,
    every_image: bool = True,
) -> Annotations:
    """Reads one or several lists of images as one split.

    Args:
        sources: Lists of images.
        label_map: Names of the masks' labels and their values in the files.
        ignore_value: Value of the pixels to ignore; None if there is none.
        every_image: Whether an image without a mask is an error; otherwise such images are left out
            and counted in `faults`.

    Raises:
        DataError: If a folder, list, image or mask is missing.
    """
    faults = FaultCounts()
    pairs = [pair for source in sources for pair in _read_pairs(source, every_image, faults)]
    return Annotations(
        name=", ".join(str(s.list_file or s.masks[0]) for s in sources),
        image_ids=np.array([pair.name for pair in pairs]),
        files=np.array([pair.image for pair in pairs]),
        sizes=np.zeros((len(pairs), 2), np.int64),
        masks=IndexMasks.of(label_map, [pair.mask for pair in pairs], ignore_value),
        faults=faults,
    )


def _read_pairs(
    source: MaskSource, every_image: bool, faults: FaultCounts
) -> Iterator[_MaskedImage]:
    image_of = files_by_stem(source.images, SUFFIXES)
    mask_of = _masks_by_stem(source.masks)
    names = list(image_of)
    if source.list_file is not None:
        names = [listed_name(line, image_of, SUFFIXES) for line in read_list(source.list_file)]
    else:
        for name in sorted(mask_of.keys() - image_of.keys()):
            faults.add("masks without an image left out", mask_of[name])
    for name in names:
        if name not in image_of:
            raise DataError(
                f"{source.images / name}.*: expected an image that {source.list_file} lists, "
                "found none"
            )
        if name in mask_of:
            yield _MaskedImage(name, str(source.images / image_of[name]), mask_of[name])
        elif every_image:
            raise DataError(
                f"{source.masks[0] / name}.png: expected the mask of "
                f"{source.images / image_of[name]}, found none"
            )
        else:
            faults.add("images without a mask", image_of[name])


def _masks_by_stem(folders: Sequence[Path]) -> dict[str, str]:
    """Returns the paths of the masks by name; an earlier folder takes precedence."""
    masks: dict[str, str] = {}
    for folder in folders:
        if folder is not folders[0] and not folder.is_dir():
            continue
        files = files_by_stem(folder, SUFFIXES)
        masks = {stem: str(folder / file) for stem, file in files.items()} | masks
    return masks
