"""The images of a split that a list file names, for formats whose readers read all images."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mbv2det.data.annotations import Annotations
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import listed_name, nearest_name, read_list, without_suffix
from mbv2det.data.images import SUFFIXES
from mbv2det.errors import DataError


def listed_images(split: Annotations, folder: Path, list_file: Path) -> Annotations:
    """Returns the images that a list names, in its order.

    Args:
        split: Annotation of these images and any others.
        folder: Folder that the names in the list are relative to.
        list_file: Text file with one image name per line.

    Raises:
        DataError: If the list names no image, or one that the annotation does not have.
    """
    names = [Path(file).relative_to(folder).as_posix() for file in split.files.tolist()]
    position = {without_suffix(name, SUFFIXES): index for index, name in enumerate(names)}
    # Names with their suffix come last: they win where two images differ in nothing else.
    position |= {name: index for index, name in enumerate(names)}
    chosen = []
    for line in read_list(list_file):
        name = line if line in position else listed_name(line, position, SUFFIXES)
        if name not in position:
            hint = nearest_name((folder / name).parent, Path(name).name)
            raise DataError(
                f"{list_file}: expected images of {split.name}, which has none called {line!r:.80} "
                f"in {folder}{hint}"
            )
        chosen.append(position[name])
    listed = split.at(np.array(chosen, np.int64))
    return replace(listed, name=str(list_file), faults=_faults_of(split, listed))


def _faults_of(split: Annotations, listed: Annotations) -> FaultCounts:
    """Returns the faults without those of images that are not listed."""
    kept = {Path(file).name for file in listed.files.tolist()}
    others = {Path(file).name for file in split.files.tolist()} - kept
    faults = FaultCounts()
    for fault, files in split.faults.files.items():
        for file in files:
            if file not in others:
                faults.add(fault, file)
    return faults
