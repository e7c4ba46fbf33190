"""Pascal VOC's XML annotation of boxes."""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbv2det.console import track
from mbv2det.data.annotated_image import AnnotatedImage, AnnotatedObject, to_annotations
from mbv2det.data.annotations import Annotations
from mbv2det.data.coco_values import UncertainValueError, flag
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import (
    existing_folder,
    files_by_stem,
    listed_name,
    nearest_name,
    read_list,
)
from mbv2det.data.images import SUFFIXES
from mbv2det.data.xml_files import finite_number, read_xml
from mbv2det.errors import DataError

_MANY_FILES = 2000  # from this number on, a progress bar is shown
_MAX_SIDE = 1_000_000  # pixels


@dataclass(frozen=True)
class VOCSource:
    """Folders and list file of some images with boxes.

    Attributes:
        images: Folder of the image files.
        annotations: Folder of XML files with the same names; it may be the folder of images.
        list_file: Text file with one name per line; None for every XML file.
    """

    images: Path
    annotations: Path
    list_file: Path | None


def read_voc(sources: Sequence[VOCSource], *, every_image: bool = True) -> Annotations:
    """Reads one or several lists of images (such as 07+12) as one split.

    The classes are the names that occur, sorted: none in a split without objects. VOC counts pixels
    from 1 and includes the last one: its box (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1,
    xmax, ymax). Objects with xmin == xmax or ymin == ymax are degenerate: they are dropped and
    counted.

    Args:
        sources: Lists of images.
        every_image: Whether an image without an XML file is an error. If not, it is an image
            without objects, and without lists all images are read.

    Raises:
        DataError: If a file is missing, or if an object lacks its name or box.
    """
    faults = FaultCounts()
    images = [image for source in sources for image in _read_images(source, every_image, faults)]
    return to_annotations(
        ", ".join(str(s.list_file or s.annotations) for s in sources), images, faults
    )


def _read_images(
    source: VOCSource, every_image: bool, faults: FaultCounts
) -> Iterator[AnnotatedImage]:
    existing_folder(source.annotations)
    image_files = files_by_stem(source.images, SUFFIXES, faults)
    xml_files = files_by_stem(source.annotations, (".xml",), faults)
    stems = _stems(source, image_files, xml_files, every_image)
    quiet = len(stems) < _MANY_FILES
    for stem in track(stems, f"Reading {source.annotations}", quiet=quiet):
        path = source.annotations / xml_files.get(stem, f"{stem}.xml")
        if stem not in image_files:
            hint = nearest_name((source.images / stem).parent, Path(stem).name)
            raise DataError(
                f"{source.images / stem}.*: expected the image of {path}, found none{hint}"
            )
        if stem in xml_files:
            size, objects = _read_file(path, faults)
        elif every_image:
            raise DataError(
                f"{path}: expected an annotation, found none; if images without XML have no "
                "objects, set data.missing_labels to no_objects"
            )
        else:
            size, objects = (0, 0), []
            faults.add("images without an XML file, taken for images without objects", stem)
        yield AnnotatedImage(stem, str(source.images / image_files[stem]), size, objects, str(path))


def _stems(
    source: VOCSource,
    image_files: Collection[str],
    xml_files: Collection[str],
    every_image: bool,
) -> list[str]:
    """Returns the names of the images, without suffix, in order."""
    if source.list_file is None:
        return sorted({*xml_files, *(() if every_image else image_files)})
    suffixes = (*SUFFIXES, ".xml")
    return [listed_name(line, image_files, suffixes) for line in read_list(source.list_file)]


def _read_file(path: Path, faults: FaultCounts) -> tuple[tuple[int, int], list[AnnotatedObject]]:
    """Reads (height, width), zeros if missing, and the objects with an area of one file."""
    root = read_xml(path)
    height, width = (_read_side(path, root, side) for side in ("height", "width"))
    objects = [_read_object(path, node) for node in root.iter("object")]
    usable = [o for o in objects if o.box[2] > o.box[0] + 1 and o.box[3] > o.box[1] + 1]
    for _ in range(len(objects) - len(usable)):
        faults.add("degenerate boxes (zero width or height) dropped", path.name)
    return (height, width), usable


def _read_side(path: Path, root: ET.Element, side: str) -> int:
    """Reads height or width; 0 if it is missing, or is 0 or -1 as some tools write."""
    value = _number(path, side, root.findtext(f"size/{side}") or "0")
    if value > _MAX_SIDE:
        raise DataError(f"{path}: expected a number of pixels in <{side}>, got {value:g}")
    return max(int(value), 0)


def _read_object(path: Path, node: ET.Element) -> AnnotatedObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{path}: expected a <name> in every <object>, got none")
    corners = [
        _number(path, tag, node.findtext(f"bndbox/{tag}"), f"{name}: ")
        for tag in ("xmin", "ymin", "xmax", "ymax")
    ]
    if all(0 <= corner <= 1 for corner in corners) and any(corner % 1 for corner in corners):
        raise DataError(
            f"{path}: {name}: expected corners in pixels, got {corners}, which look like fractions "
            "of the image; multiply x by the width and y by the height"
        )
    x_min, y_min, x_max, y_max = corners
    try:
        difficult = flag(node.findtext("difficult"))
    except UncertainValueError as error:
        raise DataError(f"{path}: {name}: expected 0 or 1 in <difficult>, got {error}") from None
    box = (x_min - 1, y_min - 1, x_max, y_max)
    return AnnotatedObject(name, box, difficult=difficult)


def _number(path: Path, tag: str, text: str | None, where: str = "") -> float:
    return finite_number(text, f"{path}: {where}expected a number in <{tag}>")
