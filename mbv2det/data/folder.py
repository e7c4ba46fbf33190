"""Masks paired with images by name: VOC's segmentation data, and plain folders of masks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mbv2det.data.annotations import Annotations
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import files_below, listed_name, nearest_name, read_list
from mbv2det.data.images import SUFFIXES
from mbv2det.data.index_masks import IndexMasks
from mbv2det.data.mask_reading import MaskReading
from mbv2det.data.name_patterns import STEM, NamePatterns, mask_pattern_of
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

_INDEX = MaskReading()
_EQUAL_NAMES = NamePatterns()


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
    reading: MaskReading = _INDEX,
    names: NamePatterns = _EQUAL_NAMES,
) -> Annotations:
    """Reads one or several lists of images as one split.

    Args:
        sources: Lists of images.
        label_map: Names of the masks' labels and their values in the files.
        ignore_value: Value of the pixels to ignore; None if there is none.
        every_image: Whether an image without a mask is an error; if not, it is left out and
            counted.
        reading: How the pixels of masks become values.
        names: Names of images and masks.

    Raises:
        DataError: If a folder, list, image or mask is missing.
    """
    faults = FaultCounts()
    pairs = [pair for source in sources for pair in _read_pairs(source, names, every_image, faults)]
    return Annotations(
        name=", ".join(str(s.list_file or s.masks[0]) for s in sources),
        image_ids=np.array([pair.name for pair in pairs]),
        files=np.array([pair.image for pair in pairs]),
        sizes=np.zeros((len(pairs), 2), np.int64),
        masks=IndexMasks.of(label_map, [pair.mask for pair in pairs], ignore_value, reading),
        faults=faults,
    )


def _read_pairs(
    source: MaskSource, patterns: NamePatterns, every_image: bool, faults: FaultCounts
) -> Iterator[_MaskedImage]:
    image_of = _images_by_stem(source, patterns, faults)
    mask_of = _masks_by_stem(source.masks, patterns, faults)
    names = list(image_of)
    if source.list_file is not None:
        names = [listed_name(line, image_of, SUFFIXES) for line in read_list(source.list_file)]
        names = [_image_stem(name, patterns, image_of) for name in names]
    else:
        for name in sorted(mask_of.keys() - image_of.keys()):
            faults.add("masks without an image left out", mask_of[name])
    for name in names:
        if name not in image_of:
            hint = nearest_name((source.images / name).parent, Path(name).name)
            raise DataError(
                f"{source.images / name}.*: expected an image that {source.list_file} lists, "
                f"found none{hint}"
            )
        if name in mask_of:
            yield _MaskedImage(name, str(source.images / image_of[name]), mask_of[name])
        elif every_image:
            raise _missing_mask(source, patterns, name, image_of[name])
        else:
            faults.add("images without a mask", image_of[name])


def _image_stem(name: str, patterns: NamePatterns, known: Mapping[str, str]) -> str:
    """Returns the {stem} of a listed name, which may be that of the file."""
    if name in known:
        return name
    return patterns.image_stem(f"{name}.png") or name


def _missing_mask(source: MaskSource, patterns: NamePatterns, name: str, image: str) -> DataError:
    """Returns the error of an image without a mask, with the pattern of a file that may be it."""
    file = patterns.mask.replace(STEM, name)
    file = file if Path(file).suffix else f"{file}.png"
    expected = source.masks[0] / file
    here = sorted(expected.parent.iterdir()) if expected.parent.is_dir() else []
    near = [
        (file.name, mask_pattern_of(name, file.name))
        for file in here
        if file.suffix.lower() in SUFFIXES and file != source.images / image
    ]
    found = next(((file, pattern) for file, pattern in near if pattern), None)
    if found is not None:
        hint = f"; there is {found[0]}: set data.mask_name to '{found[1]}'"
    else:
        hint = nearest_name(expected.parent, expected.name)
    return DataError(f"{expected}: expected the mask of {source.images / image}, found none{hint}")


def _images_by_stem(
    source: MaskSource, patterns: NamePatterns, faults: FaultCounts
) -> dict[str, str]:
    """Returns the images by {stem}; files that are masks beside their images are none."""
    files = [path.as_posix() for path in files_below(source.images, SUFFIXES, faults)]
    if source.images in source.masks:
        files = _without_masks(files, patterns)
    images: dict[str, str] = {}
    for file in files:
        stem = patterns.image_stem(file)
        if stem is None:
            faults.add("files of other names than data.image_name left out", file)
        elif stem in images:
            raise DataError(
                f"{source.images}: expected one file per name, got {images[stem]}, {file}; for "
                "masks beside the images, set data.mask_name, such as '{stem}.png'"
            )
        else:
            images[stem] = file
    return dict(sorted(images.items()))


def _without_masks(files: Sequence[str], patterns: NamePatterns) -> list[str]:
    """Returns the files of a folder of images and masks that are images.

    A file that fits the pattern of masks is one if the image that it would belong to is there.
    """
    stems = {file: patterns.mask_stem(file) for file in files}
    images = {patterns.image_stem(file) for file in files if stems[file] is None}
    return [file for file in files if stems[file] is None or stems[file] not in images]


def _masks_by_stem(
    folders: Sequence[Path], patterns: NamePatterns, faults: FaultCounts
) -> dict[str, str]:
    """Returns the paths of the masks by {stem}; an earlier folder takes precedence."""
    masks: dict[str, str] = {}
    for folder in folders:
        if folder is not folders[0] and not folder.is_dir():
            continue
        here: dict[str, str] = {}
        for path in files_below(folder, SUFFIXES, faults):
            stem = patterns.mask_stem(path.as_posix())
            if stem is None:
                continue
            if stem in here:
                raise DataError(
                    f"{folder}: expected one mask per name, got "
                    f"{Path(here[stem]).relative_to(folder)}, {path}; data.mask_name tells them "
                    "apart"
                )
            here[stem] = str(folder / path)
        masks = here | masks
    return masks
