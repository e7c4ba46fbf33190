"""VOC's layout, and XML files in folders of other names."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from mbv2det.config import SplitConfig
from mbv2det.prepare.class_tables import find_class_table
from mbv2det.prepare.file_kinds import kind_of_xml, sampled
from mbv2det.prepare.image_lists import ImageLists, find_lists
from mbv2det.prepare.inventory import Inventory, folder_of
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.pairing import Pairing, pair_by_name
from mbv2det.prepare.split_folders import (
    NO_OBJECTS,
    describe,
    describe_unannotated,
    largest_of_each_split,
    unannotated,
)

_IMAGES, _MASKS = "JPEGImages", ("SegmentationClass", "SegmentationClassAug")
_MASK_LISTS = "ImageSets/Segmentation"


def find_voc(inventory: Inventory) -> Iterator[Layout]:
    """Yields the layout of a data set with XML files, or with index masks in VOC's folders."""
    xml = inventory.of((".xml",))
    if any(kind_of_xml(inventory.root / file) == "voc" for file in sampled(xml)):
        yield from _with_boxes(inventory, pair_by_name(xml, inventory.images))
    elif _has_masks_of_voc(inventory):
        yield _masks_alone(inventory)


def _has_masks_of_voc(inventory: Inventory) -> bool:
    """Returns whether there are index masks of VOC's classes.

    CVAT and labelme write masks of one's own classes into folders of the same names. They add a
    table of the classes, or leave out VOC's lists.
    """
    tops = {PurePosixPath(file).parts[0] for file in inventory.files if "/" in file}
    has_masks = _IMAGES in tops and any(folder in tops for folder in _MASKS)
    has_lists = any(folder_of(file) == _MASK_LISTS for file in inventory.files)
    return has_masks and has_lists and find_class_table(inventory) is None


def _with_boxes(inventory: Inventory, pairings: list[Pairing]) -> Iterator[Layout]:
    if not pairings:
        return
    chosen, reasons = largest_of_each_split(pairings)
    masks = _has_masks_of_voc(inventory)
    lists = find_lists(inventory, chosen["train"].matches.values()) if len(chosen) == 1 else None
    left_out = {} if lists else unannotated(inventory.images, chosen)
    splits: Mapping[str, SplitConfig]
    if lists:
        pairing = chosen["train"]
        splits = _listed(lists, pairing)
        reasons = [*reasons, *lists.reasons]
    else:
        splits = {
            name: SplitConfig(images=pairing.images, annotations=pairing.annotations)
            for name, pairing in chosen.items()
        }
    yield Layout(
        root=inventory.root,
        format="voc",
        splits=splits,
        boxes=True,
        masks=masks,
        num_files=sum(map(len, chosen.values())),
        reasons=(
            *describe("XML files with <annotation> and images of the same names", chosen),
            *([f"index masks: in {_MASKS[0]}"] if masks else []),
            *describe_unannotated(left_out, NO_OBJECTS),
            *reasons,
        ),
    )


def _listed(lists: ImageLists, pairing: Pairing) -> dict[str, SplitConfig]:
    """Returns the splits of list files, with the folders that have other names than VOC's."""
    own = SplitConfig(
        images=None if pairing.images == _IMAGES else pairing.images,
        annotations=None if pairing.annotations == "Annotations" else pairing.annotations,
    )
    return _with_lists(own, lists)


def _with_lists(own: SplitConfig, lists: ImageLists) -> dict[str, SplitConfig]:
    """Returns the splits of list files: VOC's own by their names, others by their paths."""
    if lists.is_of_voc:
        stems = {name: PurePosixPath(file).stem for name, file in lists.files.items()}
        return {name: replace(own, split=stem) for name, stem in stems.items()}
    return {name: replace(own, list=file) for name, file in lists.files.items()}


def _masks_alone(inventory: Inventory) -> Layout:
    images = [file for file in inventory.images if PurePosixPath(file).parts[0] == _IMAGES]
    masks = [file for file in inventory.images if PurePosixPath(file).parts[0] in _MASKS]
    lists = find_lists(inventory, images)
    splits = _with_lists(SplitConfig(), lists) if lists else {"train": SplitConfig()}
    return Layout(
        root=inventory.root,
        format="voc",
        splits=splits,
        boxes=False,
        masks=True,
        num_files=len(masks),
        reasons=(
            f"{len(masks)} masks in {_MASKS[0]} and {len(images)} images in {_IMAGES}",
            *(lists.reasons if lists else ()),
        ),
    )
