"""Copy-paste: some objects of one image, pasted onto another, for training.

Source: simple copy-paste (Ghiasi et al. 2021, arXiv:2012.07177), section 3. Differs: only the image
that is copied from is scaled and mirrored here, between half and one and a half times the size at
which it fits (there 0.1 to 2 times); masks without single objects give whole regions of a label.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from mbv2det.data.annotations import Annotations
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.masks import default_label
from mbv2det.data.objects import clip
from mbv2det.data.outlines import OutlineKind
from mbv2det.data.windows import Size, cut_out
from mbv2det.errors import ConfigError
from mbv2det.labels import LabelMap
from mbv2det.preprocess import reduce_mask, resize_image, resize_mask
from mbv2det.structures import IGNORE_INDEX, NO_INSTANCES, Instances, Sample

_SCALES = 0.5, 1.5  # of the size at which the copied image fits into the other
_CHANCE = 0.5  # of each object to be copied
_FLIP = 0.5

Region = Bool[np.ndarray, "H W"]


@dataclass(frozen=True)
class Piece:
    """Something that can be pasted.

    Attributes:
        region: True for its pixels.
        label: Class of the object; None for what is no object.
    """

    region: Region
    label: int | None = None


@runtime_checkable
class Pieces(Protocol):
    """What can be copied from the images of a split, and what its objects cover."""

    def draw(self, sample: Sample, generator: np.random.Generator) -> list[Piece]:
        """Draws some pieces of an image, at least one if there is any."""
        ...

    def regions(self, sample: Sample) -> list[Region | None]:
        """Returns the pixels of each object of an image; None for those of a mere box."""
        ...


@dataclass(frozen=True)
class LabelPieces:
    """Pieces of masks that know no single objects: all pixels of a label.

    Attributes:
        label_map: Labels of the masks. Background is not copied.
    """

    label_map: LabelMap

    def draw(self, sample: Sample, generator: np.random.Generator) -> list[Piece]:
        """Draws some labels of a mask; see `Pieces`."""
        assert sample.mask is not None
        found = np.setdiff1d(sample.mask, [default_label(self.label_map), IGNORE_INDEX])
        return [Piece(sample.mask == label) for label in _some(found, generator)]

    def regions(self, sample: Sample) -> list[Region | None]:
        """Returns nothing, since there are no objects."""
        return []


@dataclass(frozen=True)
class OutlinePieces:
    """Pieces of images whose objects have outlines. Crowds are not copied.

    Attributes:
        outlines: Outlines of the objects.
        label_map: Classes of the boxes; None if there are no boxes.
    """

    outlines: InstanceMasks
    label_map: LabelMap | None

    def draw(self, sample: Sample, generator: np.random.Generator) -> list[Piece]:
        """Draws some objects with an outline; see `Pieces`."""
        single = ~self.outlines.crowd & (self.outlines.outlines.kinds >= OutlineKind.POLYGONS)
        rows = self._rows(sample)
        chosen = _some(rows[single[rows]], generator)
        return [Piece(self._region(row, sample), self._label(row)) for row in chosen]

    def regions(self, sample: Sample) -> list[Region | None]:
        """Returns the pixels of each object with an outline; see `Pieces`."""
        objects, rows = sample.instances or NO_INSTANCES, self._rows(sample)
        clipped = clip(self.outlines.boxes[rows], sample.frame.original).astype(np.float32)
        boxes = sample.frame.boxes_to_working(clipped)
        drawn = self.outlines.outlines.kinds[rows] >= OutlineKind.POLYGONS
        labels = np.array([self._label(row) for row in rows.tolist()], object)
        found: list[Region | None] = []
        for box, label in zip(objects.boxes, objects.labels, strict=True):
            matches = drawn & (labels == label) & np.isclose(boxes, box).all(axis=1)
            row = int(rows[matches.argmax()]) if matches.any() else None
            found.append(None if row is None else self._region(row, sample))
        return found

    def _rows(self, sample: Sample) -> np.ndarray:
        starts = self.outlines.starts
        return np.arange(starts[sample.key.index], starts[sample.key.index + 1])

    def _label(self, row: int) -> int | None:
        if self.label_map is None:
            return None
        return self.label_map.find(self.outlines.class_names[self.outlines.classes[row]])

    def _region(self, row: int, sample: Sample) -> Region:
        """Draws an object at the size of the sample, which may have been reduced when read."""
        region = self.outlines.outlines.draw(row, sample.frame.original)
        return reduce_mask(region, round(1 / sample.frame.scale[0])).astype(bool)


def _some(candidates: np.ndarray, generator: np.random.Generator) -> list[int]:
    """Draws each candidate by chance, at least one if there is any."""
    if not len(candidates):
        return []
    chosen = generator.random(len(candidates)) < _CHANCE
    chosen[generator.integers(len(candidates))] = True
    return candidates[chosen].tolist()


def pieces_of(annotations: Annotations) -> Pieces:
    """Returns what can be copied from the images of a split.

    Raises:
        ConfigError: If it has boxes, but no outlines: a box contains other things, too.
    """
    objects, masks = annotations.objects, annotations.masks
    outlines = annotations.outlines or masks
    if isinstance(outlines, InstanceMasks):
        return OutlinePieces(outlines, None if objects is None else objects.label_map)
    if objects is None and masks is not None:
        return LabelPieces(masks.label_map)
    raise ConfigError(
        f"augment.copy_paste: expected objects with outlines, or masks alone, got boxes without "
        f"outlines in {annotations.name}; set it to 0"
    )


def copy_paste(
    target: Sample, source: Sample, pieces: Pieces, generator: np.random.Generator
) -> Sample:
    """Returns an image with some objects of another one pasted onto it.

    The mask of the pasted pixels comes with them. Boxes of the target keep what the pasted pixels
    leave visible of the object; objects of which nothing is left are dropped.

    Args:
        target: Image to paste onto, as it was read.
        source: Image to copy from, as it was read; it is scaled, mirrored by chance, and placed at
            random.
        pieces: What can be copied from the split of both.
        generator: Source of all random numbers.
    """
    drawn = pieces.draw(source, generator)
    if not drawn:
        return target
    place = Placement.draw(source.image.shape[:2], target.image.shape[:2], generator)
    placed = [replace(piece, region=place.mask(piece.region, 0).astype(bool)) for piece in drawn]
    placed = [piece for piece in placed if piece.region.any()]
    pasted = np.zeros(target.image.shape[:2], bool)
    for piece in placed:
        pasted |= piece.region
    image = np.where(pasted[..., None], place.image(source.image), target.image)
    mask = target.mask
    if mask is not None and source.mask is not None:
        mask = np.where(pasted, place.mask(source.mask, IGNORE_INDEX), mask)
    instances = target.instances
    if instances is not None:
        instances = _with_pasted(_visible(instances, pieces.regions(target), pasted), placed)
    left_out = {**source.left_out, **target.left_out}
    return replace(target, image=image, mask=mask, instances=instances, left_out=left_out)


@dataclass(frozen=True)
class Placement:
    """Where the copied image lies on the other.

    Attributes:
        size: Size of the copied image after scaling.
        corner: (y, x) of its top left corner in pixels of the other; may be negative.
        is_flipped: Whether it is mirrored horizontally.
        canvas: Size of the other image.
    """

    size: Size
    corner: tuple[int, int]
    is_flipped: bool
    canvas: Size

    @classmethod
    def draw(cls, source: Size, canvas: Size, generator: np.random.Generator) -> "Placement":
        """Draws a scale and a position: inside the other image, or covering it where larger."""
        fitting = min(canvas[0] / source[0], canvas[1] / source[1])
        scale = fitting * generator.uniform(*_SCALES)
        size = max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
        rest = canvas[0] - size[0], canvas[1] - size[1]
        y, x = (int(generator.integers(min(0, r), max(0, r) + 1)) for r in rest)
        return cls(size, (y, x), bool(generator.random() < _FLIP), canvas)

    def image(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the copied image on an empty canvas."""
        return self._cut(resize_image(pixels, self.size), (0, 0, 0))

    def mask(self, pixels: np.ndarray, fill: int) -> UInt8[np.ndarray, "h w"]:
        """Returns a mask of the copied image on a canvas of one label."""
        return self._cut(resize_mask(pixels.astype(np.uint8), self.size), fill)

    def _cut(self, resized: np.ndarray, fill: int | tuple[int, int, int]) -> np.ndarray:
        if self.is_flipped:
            resized = np.ascontiguousarray(resized[:, ::-1])
        y, x = self.corner
        return cut_out((-y, -x, self.canvas[0] - y, self.canvas[1] - x), resized, fill)


def _visible(objects: Instances, regions: list[Region | None], pasted: Region) -> Instances:
    """Returns the objects with the boxes of what is not covered."""
    boxes, kept = objects.boxes.copy(), np.ones(len(objects), bool)
    for row, region in enumerate(regions):
        own = _box_region(boxes[row], pasted.shape) if region is None else region
        if not (own & pasted).any():
            continue
        left = own & ~pasted
        kept[row] = left.any()
        if kept[row]:
            boxes[row] = _common(boxes[row], _bounds(left))
    return Instances(boxes[kept], objects.labels[kept], objects.ignore[kept])


def _with_pasted(objects: Instances, placed: list[Piece]) -> Instances:
    """Returns the objects with the pasted ones at the end."""
    new = [(_bounds(piece.region), piece.label) for piece in placed if piece.label is not None]
    if not new:
        return objects
    boxes, labels = zip(*new, strict=True)
    return Instances(
        np.concatenate([objects.boxes, np.stack(boxes)]),
        np.concatenate([objects.labels, np.array(labels, np.int64)]),
        np.concatenate([objects.ignore, np.zeros(len(new), bool)]),
    )


def _box_region(box: Float32[np.ndarray, "4"], size: Size) -> Region:
    """Returns the pixels that a box touches."""
    region = np.zeros(size, bool)
    x_min, y_min = np.floor(box[:2]).astype(int)
    x_max, y_max = np.ceil(box[2:]).astype(int)
    region[y_min:y_max, x_min:x_max] = True
    return region


def _bounds(region: Region) -> Float32[np.ndarray, "4"]:
    """Returns the xyxy box around the pixels of a region, which has at least one."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _common(
    first: Float32[np.ndarray, "4"], second: Float32[np.ndarray, "4"]
) -> Float32[np.ndarray, "4"]:
    """Returns the box that two boxes share; the second one if they share none."""
    shared = np.concatenate([np.maximum(first, second)[:2], np.minimum(first, second)[2:]])
    return shared if (shared[2:] > shared[:2]).all() else second
