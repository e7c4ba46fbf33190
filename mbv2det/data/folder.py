"""Folders of images and of masks that share their names: VOC's segmentation data, and anybody's."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbv2det.data.annotations import Annotations, Report
from mbv2det.data.files import files_by_stem, read_list, without_column, without_suffix
from mbv2det.data.images import SUFFIXES
from mbv2det.data.masks import IndexMasks
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap


@dataclass(frozen=True)
class MaskSource:
    """Where one list of images with masks lies.

    Attributes:
        images: Folder of the image files.
        masks: Folders of index images under the same names; the first that has one counts.
        list_file: Names, one a line, or None for every image.
    """

    images: Path
    masks: tuple[Path, ...]
    list_file: Path | None


def read_masks(
    sources: Sequence[MaskSource],
    labels: LabelMap,
    ignore_value: int | None,
    *,
    every_image: bool = True,
) -> Annotations:
    """Reads one or several lists as one split.

    Args:
        sources: Lists of images.
        labels: Names of the masks' labels, and their values in the files.
        ignore_value: Value of the pixels to ignore; None if there is none.
        every_image: Whether an image without a mask is an error; else it is left out, and counted.

    Raises:
        DataError: For a missing folder, list, image or mask.
    """
    report = Report()
    ids, images, masks = [], [], []
    for source in sources:
        image_of = files_by_stem(source.images, SUFFIXES)
        mask_of = _masks_by_stem(source.masks)
        names = list(image_of)
        if source.list_file is not None:
            names = [_listed(line, image_of) for line in read_list(source.list_file)]
        else:
            for name in sorted(mask_of.keys() - image_of.keys()):
                report.add("masks without an image left out", mask_of[name])
        for name in names:
            if name not in image_of:
                raise DataError(
                    f"{source.images / name}.*: expected an image that {source.list_file} lists, "
                    "found none"
                )
            if name not in mask_of and not every_image:
                report.add("images without a mask", image_of[name])
                continue
            if name not in mask_of:
                raise DataError(
                    f"{source.masks[0] / name}.png: expected the mask of "
                    f"{source.images / image_of[name]}, found none"
                )
            ids.append(name)
            images.append(str(source.images / image_of[name]))
            masks.append(mask_of[name])
    return Annotations(
        name=", ".join(str(s.list_file or s.masks[0]) for s in sources),
        image_ids=np.array(ids),
        files=np.array(images),
        sizes=np.zeros((len(images), 2), np.int64),
        masks=IndexMasks.of(labels, masks, ignore_value),
        report=report,
    )


def _listed(line: str, known: Collection[str]) -> str:
    """The name that a line of a list means, which may itself end in a number."""
    name = without_suffix(line, SUFFIXES)
    return name if name in known else without_suffix(without_column(line), SUFFIXES)


def _masks_by_stem(folders: Sequence[Path]) -> dict[str, str]:
    """Paths of the masks by name, those of earlier folders first; later folders may be absent."""
    found: dict[str, str] = {}
    for folder in folders:
        if folder is not folders[0] and not folder.is_dir():
            continue
        here = {stem: str(folder / file) for stem, file in files_by_stem(folder, SUFFIXES).items()}
        found = here | found
    return found
