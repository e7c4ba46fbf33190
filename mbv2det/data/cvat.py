"""CVAT's XML ("CVAT for images"): one file for all images."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mbv2det.data.annotated_image import AnnotatedImage, AnnotatedObject, to_annotations
from mbv2det.data.annotations import Annotations
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import existing_folder, find_file, nearest_name, refuse_outside
from mbv2det.data.shape_outlines import ellipse, merged, pasted_mask, rectangle
from mbv2det.data.xml_files import finite_number, read_children
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap

_SHAPES = ("box", "polygon", "ellipse", "mask")
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")
_MAX_SIDE = 1_000_000  # pixels
_MAX_BYTES = 300_000_000  # one file annotates all images


def read_cvat(
    path: Path, images: Path, root: Path, *, subset: str | None = None, masks: bool = False
) -> Annotations:
    """Reads the images of an XML file.

    Shapes of one label and group are one object. The classes are the labels that the file declares,
    or else those that occur. Polylines, points, cuboids, skeletons and tags are left out and
    counted.

    Args:
        path: XML file.
        images: Folder that the file's names are relative to.
        root: Folder of the data set, outside of which no image is read.
        subset: The subset to read; None for all images.
        masks: Whether to also read polygons, ellipses and masks, as masks of background and all
            labels.

    Raises:
        DataError: If a file is missing or damaged.
    """
    existing_folder(images)
    faults, names = FaultCounts(), list[str]()
    found: list[AnnotatedImage] = []
    subsets = set[str]()
    for node in read_children(path, _MAX_BYTES):
        if node.tag == "track":
            raise DataError(
                f"{path}: expected 'CVAT for images', got tracks: export the task again in that "
                "format"
            )
        if node.tag == "meta":
            names = _declared_labels(node)
        elif node.tag == "image":
            subsets.add(node.get("subset", ""))
            if subset is None or node.get("subset") == subset:
                found.append(_read_image(path, node, images, root, faults))
    if not found:
        raise DataError(
            f"{path}: expected images{f' of the subset {subset!r}' if subset else ''}, got none; "
            f"its subsets are {', '.join(map(repr, sorted(subsets))) or 'none'}"
        )
    names += sorted({o.name for image in found for o in image.objects} - {*names})
    label_map = LabelMap(tuple(names), tuple(range(1, len(names) + 1)))
    name = f"{path} ({subset})" if subset else str(path)
    return to_annotations(name, found, faults, label_map=label_map, outlines=masks)


def image_names(path: Path) -> dict[str, str]:
    """Returns the subset of each image that a file names; empty where there is none.

    Raises:
        DataError: If the file is missing or no XML.
    """
    nodes = (node for node in read_children(path, _MAX_BYTES) if node.tag == "image")
    return {node.get("name", ""): node.get("subset", "") for node in nodes}


def _declared_labels(meta: ET.Element) -> list[str]:
    """Returns the labels in the head of the file, in its order, without parts of skeletons."""
    labels = [
        (label.findtext("name") or "").strip()
        for label in meta.iterfind(".//labels/label")
        if not label.findtext("parent")
    ]
    return list(dict.fromkeys(name for name in labels if name))


def _read_image(
    path: Path, node: ET.Element, folder: Path, root: Path, faults: FaultCounts
) -> AnnotatedImage:
    name = node.get("name") or ""
    where = f"{path}: image {name or node.get('id')}"
    if not name:
        raise DataError(f"{where}: expected the attribute name, got none")
    file = find_file(folder, name, root)
    if file is None:
        refuse_outside(root, folder / name, where)
        hint = nearest_name((folder / name).parent, Path(name.replace("\\", "/")).name)
        raise DataError(f"{where}: expected {folder / name}, found none{hint}")
    if file != name:
        faults.add("images named with folders of another machine, found by their name", name)
    height, width = (_side(where, node, side) for side in ("height", "width"))
    objects = list(_read_shapes(where, node, (height, width), faults))
    return AnnotatedImage(
        Path(file).with_suffix("").as_posix(), str(folder / file), (height, width), objects, where
    )


def _side(where: str, node: ET.Element, side: str) -> int:
    value = _number(where, node, side)
    if not 1 <= value <= _MAX_SIDE:
        raise DataError(f"{where}: expected a number of pixels as {side}, got {value:g}")
    return int(value)


def _read_shapes(
    where: str, image: ET.Element, size: tuple[int, int], faults: FaultCounts
) -> Iterator[AnnotatedObject]:
    objects, groups = [], []
    for index, node in enumerate(image, start=1):
        if node.tag in _WITHOUT_AREA:
            faults.add(f"shapes without an area left out ({node.tag})", image.get("name", ""))
        elif node.tag in _SHAPES:
            objects.append(_read_shape(f"{where}: {node.tag} {index}", node, size))
            group = (node.get("group_id") or "0").strip()
            groups.append(None if group == "0" else group)
        else:
            raise DataError(
                f"{where}: expected shapes ({', '.join((*_SHAPES, *_WITHOUT_AREA))}), got "
                f"<{node.tag:.80}>"
            )
    yield from merged(objects, groups)


def _read_shape(where: str, node: ET.Element, size: tuple[int, int]) -> AnnotatedObject:
    name = (node.get("label") or "").strip()
    if not name:
        raise DataError(f"{where}: expected the attribute label, got none")
    if node.tag == "polygon":
        return AnnotatedObject.of_polygons(name, [_points(where, node)])
    if node.tag == "mask":
        return _read_mask(where, name, node, size)
    turn = _number(where, node, "rotation", "0")
    if node.tag == "ellipse":
        cx, cy, rx, ry = (_number(where, node, key) for key in ("cx", "cy", "rx", "ry"))
        return AnnotatedObject.of_polygons(name, [ellipse((cx, cy), (rx, ry), turn)])
    x_min, y_min, x_max, y_max = (_number(where, node, k) for k in ("xtl", "ytl", "xbr", "ybr"))
    box = (x_min, y_min, x_max, y_max)
    if turn:
        return AnnotatedObject.of_polygons(name, [rectangle(box, turn)])
    return AnnotatedObject(name, box)


def _points(where: str, node: ET.Element) -> list[float]:
    pairs = [pair.split(",") for pair in (node.get("points") or "").split(";") if pair.strip()]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise DataError(
            f"{where}: expected three points or more, x,y;x,y;..., got {node.get('points')!r:.80}"
        )
    expected = f"{where}: expected numbers as points"
    return [finite_number(text, expected) for pair in pairs for text in pair]


def _read_mask(where: str, name: str, node: ET.Element, size: tuple[int, int]) -> AnnotatedObject:
    """Reads run lengths: row by row within the mask's own rectangle, zeros first."""
    left, top, width, height = (
        int(_number(where, node, key)) for key in ("left", "top", "width", "height")
    )
    texts = (node.get("rle") or "").split(",")
    runs = [finite_number(text, f"{where}: expected numbers as rle") for text in texts]
    inside = 0 < width <= size[1] and 0 < height <= size[0]
    if not inside or min(runs) < 0 or any(run % 1 for run in runs) or sum(runs) != width * height:
        raise DataError(
            f"{where}: expected run lengths of {height}x{width} pixels (height x width) within the "
            f"image of {size[0]}x{size[1]}, got {len(runs)} of {sum(runs):g} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    pixels = np.repeat(values, np.array(runs, np.int64)).reshape(height, width)
    return pasted_mask(where, name, pixels, (top, left), size)


def _number(where: str, node: ET.Element, key: str, default: str | None = None) -> float:
    return finite_number(node.get(key, default), f"{where}: expected a number as {key}")
