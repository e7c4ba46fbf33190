"""LabelMe's JSON files, one for each image."""

from collections.abc import Iterator

from mbv2det.config import SplitConfig
from mbv2det.prepare.file_kinds import kind_of_json, sampled
from mbv2det.prepare.image_lists import find_lists
from mbv2det.prepare.inventory import Inventory
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.pairing import pair_by_name
from mbv2det.prepare.split_folders import (
    NO_OBJECTS,
    describe,
    describe_unannotated,
    largest_of_each_split,
    unannotated,
)


def find_labelme(inventory: Inventory) -> Iterator[Layout]:
    """Yields the layout of a data set with LabelMe's JSON files."""
    files = inventory.of((".json",))
    if not any(kind_of_json(inventory.root / file) == "labelme" for file in sampled(files)):
        return
    pairings = pair_by_name(files, inventory.images)
    if not pairings:
        return
    chosen, reasons = largest_of_each_split(pairings)
    splits = {
        name: SplitConfig(
            images=pairing.images,
            annotations=None if pairing.annotations == pairing.images else pairing.annotations,
        )
        for name, pairing in chosen.items()
    }
    lists = find_lists(inventory, chosen["train"].matches.values()) if len(chosen) == 1 else None
    if lists:
        (folders,) = splits.values()
        splits = {
            name: SplitConfig(images=folders.images, annotations=folders.annotations, list=file)
            for name, file in lists.files.items()
        }
        reasons = [*reasons, *lists.reasons]
    left_out = {} if lists else unannotated(inventory.images, chosen)
    what = "JSON files with shapes and images of the same names"
    yield Layout(
        root=inventory.root,
        format="labelme",
        splits=splits,
        boxes=True,
        masks=True,
        num_files=sum(map(len, chosen.values())),
        reasons=(
            *describe(what, chosen),
            *describe_unannotated(left_out, NO_OBJECTS),
            *reasons,
        ),
    )
