"""Small pictures of images for a page, as large as a budget of bytes allows."""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_SIDES = (640, 512, 448, 384, 320, 256, 192, 128)
_QUALITY = 72
_TRIED = 16  # images from which the size of all is estimated


def shrink(image: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    """Returns an image in the largest size of thumbnails; a smaller image stays as it is."""
    return _resized(Image.fromarray(image), _SIDES[0])


def make_thumbnails(pictures: Mapping[int, Image.Image], budget: int) -> dict[int, bytes]:
    """Returns JPEG files that together take at most `budget` bytes, by the key of the picture.

    All have the same longest side, unless a picture is smaller. If even the smallest ones take
    more, the last ones are left out.

    Args:
        pictures: Pictures from `shrink`, the most important first.
        budget: Number of bytes.
    """
    side = _side(list(pictures.values()), budget)
    while True:
        files = {key: _file(picture, side) for key, picture in pictures.items()}
        if sum(map(len, files.values())) <= budget:
            return files
        if side == _SIDES[-1]:
            return dict(_first_within(files.items(), budget))
        side = _SIDES[_SIDES.index(side) + 1]


def data_address(content: bytes, kind: str) -> str:
    """Returns the content of a file as an address that a page can contain.

    Args:
        content: Content of the file.
        kind: `jpeg` or `png`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _side(pictures: Sequence[Image.Image], budget: int) -> int:
    """Returns the longest side at which a sample of the pictures keeps within its part."""
    sample = pictures[:: max(1, len(pictures) // _TRIED)]
    for side in _SIDES[:-1]:
        size = sum(len(_file(picture, side)) for picture in sample)
        if size * len(pictures) <= budget * len(sample):
            return side
    return _SIDES[-1]


def _file(picture: Image.Image, side: int) -> bytes:
    file = io.BytesIO()
    _resized(picture, side).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _resized(picture: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(picture.size))
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else picture


def _first_within(files: Iterable[tuple[int, bytes]], budget: int) -> Iterator[tuple[int, bytes]]:
    used = 0
    for key, file in files:
        used += len(file)
        if used > budget:
            return
        yield key, file
