"""Which of the formats a folder of data has."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mbv2det.errors import DataError
from mbv2det.prepare.inventory import Inventory, take_inventory
from mbv2det.prepare.layout import Layout
from mbv2det.prepare.layouts.coco import find_coco
from mbv2det.prepare.layouts.cvat import find_cvat
from mbv2det.prepare.layouts.folder import find_folder
from mbv2det.prepare.layouts.labelme import find_labelme
from mbv2det.prepare.layouts.voc import find_voc
from mbv2det.prepare.layouts.yolo import find_yolo

# Masks in image files come last: they take longest, and VOC has them too.
_FINDERS: Mapping[str, Callable[[Inventory], Iterable[Layout]]] = {
    "coco": find_coco,
    "voc": find_voc,
    "yolo": find_yolo,
    "labelme": find_labelme,
    "cvat": find_cvat,
    "folder": find_folder,
}

FORMATS = tuple(_FINDERS)

_LOOKED_FOR = (
    "coco (JSON with images, annotations and categories), voc (XML with <annotation>, or "
    "SegmentationClass), yolo (text files with the names of images), labelme (JSON with shapes), "
    "cvat (XML with <annotations>), folder (masks with the names of images)"
)


def find_layout(root: Path, format: str | None = None) -> Layout:
    """Finds the format and the splits of a data set.

    Args:
        root: Folder of the data set, or one that has nothing but that folder.
        format: The format to look for; None for any.

    Raises:
        DataError: If there is none, or if there are several.
    """
    inventory = take_inventory(root)
    if not inventory.images:
        raise DataError(f"{root}: expected images, found none ({inventory.summary()})")
    wanted = FORMATS if format is None else (format,)
    found: list[Layout] = []
    for name in wanted:
        if name != "folder" or format == "folder" or not any(layout.masks for layout in found):
            found += _FINDERS[name](inventory)
    if len(found) > 1:
        seen = " and ".join(f"{layout.format} ({layout.reasons[0]})" for layout in found)
        raise DataError(
            f"{root}: expected one format, found {seen}; choose with "
            f"{' or '.join(f'--format {layout.format}' for layout in found)}"
        )
    if not found:
        raise DataError(
            f"{root}: expected annotations, found {inventory.summary()} and none of: "
            f"{_LOOKED_FOR if format is None else format}; data/README.md has the folders and "
            "settings of each format, for a configuration written by hand"
        )
    return found[0]
