"""COCO's JSON files, those of Roboflow among them."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mbv2det.config import SplitConfig
from mbv2det.data.coco_cache import load_content
from mbv2det.errors import DataError
from mbv2det.prepare.file_kinds import kind_of_json, sampled
from mbv2det.prepare.inventory import Inventory, folder_of
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.named_images import folder_of_names
from mbv2det.prepare.split_words import split_of_path, with_train

_OFFICIAL = re.compile(r"instances_[a-z]+\d*|_annotations\.coco")


@dataclass(frozen=True)
class _File:
    """A JSON file: its path and its folder of images, relative to the root."""

    path: str
    images: str
    num_images: int


def find_coco(inventory: Inventory) -> Iterator[Layout]:
    """Yields the layout of a data set with COCO's JSON files."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for file in _files(inventory):
        by_split[split_of_path(file) or "train"].append(file)
    if not by_split:
        return
    chosen = {split: _only(split, files) for split, files in by_split.items()}
    splits = with_train({split: _open(inventory, file) for split, file in chosen.items()})
    left_out = [
        file for files in by_split.values() for file in files if file not in chosen.values()
    ]
    yield Layout(
        root=inventory.root,
        format="coco",
        splits={
            name: SplitConfig(annotations=file.path, images=file.images)
            for name, file in splits.items()
        },
        boxes=True,
        masks=True,
        num_files=sum(file.num_images for file in splits.values()),
        reasons=(
            *(
                f"{name}: {file.path} has images, annotations and categories; its "
                f"{file.num_images} images are in {file.images}"
                for name, file in splits.items()
            ),
            *(f"left out: {file}, another annotation of the same split" for file in left_out),
        ),
    )


def _files(inventory: Inventory) -> Iterator[str]:
    by_folder: dict[str, list[str]] = defaultdict(list)
    for file in inventory.of((".json",)):
        by_folder[folder_of(file)].append(file)
    for files in by_folder.values():
        yield from (
            file for file in sampled(files) if kind_of_json(inventory.root / file) == "coco"
        )


def _only(split: str, files: Sequence[str]) -> str:
    """Returns the file of a split; of several, the one that has COCO's own name.

    Raises:
        DataError: If there are several.
    """
    official = [file for file in files if _OFFICIAL.fullmatch(PurePosixPath(file).stem)]
    chosen = official or files
    if len(chosen) > 1:
        raise DataError(
            f"expected one COCO file for {split}, found {len(files)}: {', '.join(files[:4])}; move "
            "the others away, or give a folder with one of them as ROOT"
        )
    return chosen[0]


def _open(inventory: Inventory, file: str) -> _File:
    names = load_content(inventory.root / file, outlines=False).file_names
    images = folder_of_names(inventory, names, file)
    if images is None:
        raise DataError(
            f"{inventory.root / file}: expected its {len(names)} images below {inventory.root}, "
            f"found no folder that has them; the first is {next(iter(names), None)!r}"
        )
    return _File(file, images, len(names))
