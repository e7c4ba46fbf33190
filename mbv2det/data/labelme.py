"""LabelMe's JSON files: one per image, with shapes."""

import base64
import binascii
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from mbv2det.data.annotated_image import AnnotatedImage, AnnotatedObject, to_annotations
from mbv2det.data.annotations import Annotations
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.file_lists import files_by_stem, listed_name, nearest_name, read_list
from mbv2det.data.images import SUFFIXES
from mbv2det.data.json_files import read_json
from mbv2det.data.shape_outlines import ellipse, merged, pasted_mask, rectangle
from mbv2det.errors import DataError

_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_NUM_POINTS = {"polygon": (3, None), "rectangle": (2, 4), "circle": (2, 2), "mask": (2, 2)}


class _Shape(msgspec.Struct, gc=False):
    """An entry of `shapes`."""

    label: str | int | float
    points: list[tuple[float, float]]
    shape_type: str | None = "polygon"
    group_id: int | float | str | None = None
    mask: str | None = None


class _File(msgspec.Struct, gc=False):
    """A file; it may contain the image, too, which is skipped."""

    shapes: list[_Shape]
    imagePath: str | None = None  # noqa: N815 - the key in the file
    imageHeight: int | None = None  # noqa: N815
    imageWidth: int | None = None  # noqa: N815


@dataclass(frozen=True)
class LabelMeSource:
    """Folders and list file of some images with shapes.

    Attributes:
        images: Folder of the image files.
        annotations: Folder of JSON files with the same names; it may be the folder of images.
        list_file: Text file with one name per line; None for every JSON file.
    """

    images: Path
    annotations: Path
    list_file: Path | None


def read_labelme(
    source: LabelMeSource, *, every_image: bool = True, masks: bool = False
) -> Annotations:
    """Reads the shapes of a folder of JSON files.

    Shapes of one label and group are one object. Lines and points have no area: they are left out
    and counted.

    Args:
        source: Folders and list.
        every_image: Whether an image without a JSON file is an error, where a list names it. If
            not, it is an image without objects, and without a list all images are read.
        masks: Whether to also read the shapes as masks of background and all labels.

    Raises:
        DataError: If a file is missing or damaged.
    """
    faults = FaultCounts()
    images = list(_read_images(source, every_image, faults))
    name = str(source.list_file or source.annotations)
    return to_annotations(name, images, faults, outlines=masks)


def _read_images(
    source: LabelMeSource, every_image: bool, faults: FaultCounts
) -> Iterator[AnnotatedImage]:
    image_files = files_by_stem(source.images, SUFFIXES, faults)
    json_files = files_by_stem(source.annotations, (".json",), faults)
    if source.list_file is None:
        stems = sorted({*json_files, *(() if every_image else image_files)})
    else:
        suffixes = (*SUFFIXES, ".json")
        lines = read_list(source.list_file)
        stems = [listed_name(line, {**json_files, **image_files}, suffixes) for line in lines]
    for stem in stems:
        path = source.annotations / json_files.get(stem, f"{stem}.json")
        if stem not in json_files and (every_image or stem not in image_files):
            raise DataError(
                f"{path}: expected an annotation, found none; if images without JSON have no "
                "objects, set data.missing_labels to no_objects"
            )
        file = read_json(path, _File) if stem in json_files else _File([])
        if stem not in json_files:
            faults.add("images without a JSON file, taken for images without objects", stem)
        image = _image_of(source, stem, path, file, image_files)
        size = _size(path, file)
        objects = _read_shapes(path, file.shapes, size, faults)
        yield AnnotatedImage(stem, str(source.images / image), size, objects, str(path))


def _image_of(
    source: LabelMeSource, stem: str, path: Path, file: _File, image_files: dict[str, str]
) -> str:
    """Returns the image of a JSON file: of the same name, or of the name in `imagePath`.

    Only the last part of `imagePath` is used: its folders are often those of another machine.
    """
    if stem in image_files:
        return image_files[stem]
    name = re.split(r"[\\/]", file.imagePath or "")[-1]
    named = Path(stem).with_name(Path(name).stem).as_posix() if Path(name).stem else stem
    if named in image_files:
        return image_files[named]
    hint = nearest_name(source.images, name or Path(stem).name)
    raise DataError(f"{source.images / stem}.*: expected the image of {path}, found none{hint}")


def _size(path: Path, file: _File) -> tuple[int, int]:
    height, width = file.imageHeight or 0, file.imageWidth or 0
    if max(height, width) > 1_000_000:
        raise DataError(f"{path}: expected imageHeight and imageWidth in pixels, got {height}")
    return max(height, 0), max(width, 0)


def _read_shapes(
    path: Path, shapes: Sequence[_Shape], size: tuple[int, int], faults: FaultCounts
) -> list[AnnotatedObject]:
    objects, groups = [], []
    for index, shape in enumerate(shapes):
        where, kind = f"{path}: shapes[{index}]", shape.shape_type or "polygon"
        if not str(shape.label).strip():
            raise DataError(f"{where}: expected a label, got none")
        if kind in _WITHOUT_AREA:
            faults.add(f"shapes without an area left out ({kind})", path.name)
            continue
        objects.append(_read_shape(where, shape, kind, size))
        groups.append(shape.group_id)
    return merged(objects, groups)


def _read_shape(where: str, shape: _Shape, kind: str, size: tuple[int, int]) -> AnnotatedObject:
    if kind not in _NUM_POINTS:
        known = ", ".join((*_NUM_POINTS, *_WITHOUT_AREA))
        raise DataError(f"{where}: expected shape_type to be one of {known}, got {kind!r:.80}")
    least, most = _NUM_POINTS[kind]
    points, name = shape.points, str(shape.label).strip()
    if len(points) < least or (most is not None and len(points) > most):
        raise DataError(
            f"{where}: expected {least} points or more of a {kind}, got {len(points)}"
            if most is None
            else f"{where}: expected {least} to {most} points of a {kind}, got {len(points)}"
        )
    if kind == "polygon":
        return AnnotatedObject.of_polygons(name, [[v for point in points for v in point]])
    (x0, y0), (x1, y1) = points[0], points[len(points) // 2]
    if kind == "circle":
        radius = math.hypot(x1 - x0, y1 - y0)
        return AnnotatedObject.of_polygons(name, [ellipse((x0, y0), (radius, radius))])
    if kind == "mask":
        return _read_mask(where, shape, name, size)
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    return AnnotatedObject(name, box, [rectangle(box)])


def _read_mask(where: str, shape: _Shape, name: str, size: tuple[int, int]) -> AnnotatedObject:
    try:
        with Image.open(BytesIO(base64.b64decode(shape.mask or "", validate=True))) as image:
            pixels = np.asarray(image.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError):
        raise DataError(f"{where}: expected a PNG image in base64 as mask, got none") from None
    (x, y) = shape.points[0]
    return pasted_mask(where, name, pixels, (round(y), round(x)), size)
