"""What the files of an image are like: read by any number of processes, none of them an error.

`look_at_image` decodes an image and its mask. `look_at_headers` reads only the first bytes of
each, which takes a fiftieth of the time and finds the files that would end a training.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

from mbv2det.console import track
from mbv2det.data.annotations import Annotations
from mbv2det.data.image_errors import image_errors
from mbv2det.data.images import is_turned, read_image
from mbv2det.errors import DataError

Size = tuple[int, int]

_CHUNK = 16  # images that a process takes at a time
_FEW = 100  # images for which starting processes takes longer than reading them


@dataclass(frozen=True)
class ImageFacts:
    """What the files of one image are like.

    Attributes:
        index: Index of the image in the split.
        error: Why the image cannot be read; empty if it can.
        stored_size: (height, width) of the pixels as stored; None if the image cannot be read.
        upright_size: (height, width) after turning by the orientation tag.
        is_deep: Whether a channel has more than 8 bits.
        faults: Faults that the reader of images worked around.
        digest: SHA-256 of the size and the decoded upright RGB pixels; empty if not decoded.
        mask_error: Why the mask cannot be used; empty if it can, or if there is none.
        mask_size: (height, width) of the mask; None without a readable one.
        label_counts: Number of pixels of each label 0..255 of the mask; None if not decoded.
    """

    index: int
    error: str = ""
    stored_size: Size | None = None
    upright_size: Size | None = None
    is_deep: bool = False
    faults: tuple[str, ...] = ()
    digest: bytes = b""
    mask_error: str = ""
    mask_size: Size | None = None
    label_counts: Int64[np.ndarray, "256"] | None = None


@dataclass(frozen=True)
class _Header:
    size: Size
    is_turned: bool
    is_deep: bool

    @property
    def upright_size(self) -> Size:
        return self.size[::-1] if self.is_turned else self.size


def look_at_image(split: Annotations, index: int) -> ImageFacts:
    """Decodes an image and its mask."""
    return _with_mask(split, _look_at_pixels(split.path(index), index))


def _look_at_pixels(path: Path, index: int) -> ImageFacts:
    try:
        header = _read_header(str(path))
        pixels, faults = read_image(path)
    except DataError as error:
        return ImageFacts(index, str(error))
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels.tobytes())
    return ImageFacts(
        index,
        stored_size=header.size,
        upright_size=(pixels.shape[0], pixels.shape[1]),
        is_deep=header.is_deep,
        faults=faults,
        digest=digest.digest(),
    )


def _with_mask(split: Annotations, facts: ImageFacts) -> ImageFacts:
    """Returns the facts about an image with those about its decoded mask."""
    try:
        mask = split.mask(facts.index)
    except DataError as error:
        return replace(facts, mask_error=str(error))
    if mask is None:
        return facts
    counts = np.bincount(mask.ravel(), minlength=256)
    return replace(facts, mask_size=(mask.shape[0], mask.shape[1]), label_counts=counts)


def look_at_headers(split: Annotations, index: int) -> ImageFacts:
    """Reads the sizes in the headers of an image and, if it is an image file, of its mask."""
    try:
        header = _read_header(str(split.path(index)))
    except DataError as error:
        return ImageFacts(index, str(error))
    mask_size, mask_error = None, ""
    if split.masks is not None and split.masks.annotated[index]:
        source = split.mask_source(index)
        if os.path.isfile(source):
            try:
                mask_size = _read_header(source).size
            except DataError as error:
                mask_error = str(error)
    return ImageFacts(
        index,
        stored_size=header.size,
        upright_size=header.upright_size,
        is_deep=header.is_deep,
        mask_error=mask_error,
        mask_size=mask_size,
    )


def look_at_all(
    split: Annotations,
    look: Callable[[Annotations, int], ImageFacts],
    title: str,
    processes: int | None = None,
) -> list[ImageFacts]:
    """Looks at every image of a split, in several processes if there are many.

    Args:
        split: Split to look at.
        look: `look_at_image` or `look_at_headers`.
        title: Text beside the progress bar.
        processes: Number of processes; by default one for each core.

    Returns:
        The facts, in the order of the images.
    """
    indices = range(len(split))
    processes = processes or os.cpu_count() or 1
    hide = len(split) < _FEW
    if hide or processes == 1:
        few = (look(split, index) for index in indices)
        return list(track(few, title, len(split), quiet=hide))
    with ProcessPoolExecutor(processes, initializer=_share, initargs=(split, look)) as pool:
        facts = pool.map(_look_at_shared, indices, chunksize=_CHUNK)
        return list(track(facts, title, len(split)))


# The split and the function of a worker process: they are sent once instead of with every image.
_shared: list[tuple[Annotations, Callable[[Annotations, int], ImageFacts]]] = []


def _share(split: Annotations, look: Callable[[Annotations, int], ImageFacts]) -> None:
    _shared[:] = [(split, look)]


def _look_at_shared(index: int) -> ImageFacts:
    split, look = _shared[0]
    return look(split, index)


def _read_header(path: str) -> _Header:
    """Reads size, orientation and depth of an image file.

    Raises:
        DataError: If the file is missing or no image.
    """
    with image_errors(path), Image.open(path) as image:
        raw_modes = [str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3]
        return _Header(
            (image.height, image.width),
            is_turned(image),
            image.mode.startswith(("I", "F")) or any(";16" in mode for mode in raw_modes),
        )


def measured_sizes(split: Annotations, facts: Sequence[ImageFacts]) -> Iterator[Size]:
    """Yields the size of each image in the frame of its annotation.

    This is the annotated size where the file has it, upright or as stored, or cannot be read, and
    the size of the upright file elsewhere.
    """
    for fact in facts:
        annotated = split.size(fact.index)
        measured = fact.upright_size
        if measured is None or annotated in (measured, fact.stored_size):
            measured = annotated
        yield measured or (0, 0)
