"""Image files: the one reader of training, evaluation and prediction."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps

from mbv2det.data.image_errors import image_errors
from mbv2det.data.value_range import ValueRange, depth_fault, is_deep, range_of, to_8_bits
from mbv2det.errors import DataError

_ORIENTATION = 0x0112  # tag of EXIF
_TURNED = (5, 6, 7, 8)  # its values that swap height and width

_REDUCIBLE = ("JPEG", "MPO")  # formats of PIL; MPO is that of phones, several JPEGs in a file

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


Reduction = Callable[[tuple[int, int]], int]
"""Returns by what factor an image of (height, width) may be reduced: 1, 2, 4 or 8."""


def unreduced(size: tuple[int, int]) -> int:
    """The reduction of images that are needed as they are: none."""
    return 1


@dataclass(frozen=True)
class DecodedImage:
    """The content of an image file.

    Attributes:
        pixels: Upright RGB pixels, each of which stands for a square of `factor` pixels of the
            file. The last squares may reach beyond the image.
        size: (height, width) of the whole image, upright.
        factor: By how much the image was reduced; 1 for not at all.
        faults: A phrase for each fault that was worked around.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    size: tuple[int, int]
    factor: int
    faults: tuple[str, ...]


def read_image(
    path: str | Path,
    annotated_size: tuple[int, int] | None = None,
    size_source: str = "the annotation",
    value_range: ValueRange | None = None,
) -> tuple[UInt8[np.ndarray, "H W 3"], tuple[str, ...]]:
    """Decodes an image file as upright RGB.

    The camera's orientation tag (EXIF) is applied, unless only the pixels as stored have the
    annotated size. A truncated file is decoded as far as possible. An image of more than 178
    million pixels, PIL's limit (twice `PIL.Image.MAX_IMAGE_PIXELS`), is refused before it is
    decoded: it would take several times 0.5 GB.

    Args:
        path: Path of the image file.
        annotated_size: Annotated (height, width) of the image; None if it is not annotated.
        size_source: Name of the file or annotation that gives this size, for messages.
        value_range: Values of an image of more than 8 bits that become 0 and 255.

    Returns:
        The pixels, and a phrase for each fault that was worked around.

    Raises:
        DataError: If the file is missing, no image or too large, or if the image has another size
            than annotated.
    """
    decoded = read_reduced(path, unreduced, annotated_size, size_source, value_range)
    return decoded.pixels, decoded.faults


def read_reduced(
    path: str | Path,
    reduction: Reduction,
    annotated_size: tuple[int, int] | None = None,
    size_source: str = "the annotation",
    value_range: ValueRange | None = None,
) -> DecodedImage:
    """Decodes an image file as `read_image` does; a JPEG at a reduced scale where that is enough.

    The decoder then computes each pixel from the low frequencies of a block. The result is close to
    the mean of the square of pixels, and not equal to it.

    Args:
        path: Path of the image file.
        reduction: By what factor an image of a size may be reduced.
        annotated_size: As in `read_image`.
        size_source: As in `read_image`.
        value_range: As in `read_image`.

    Raises:
        DataError: As `read_image` does.
    """

    def allowed(size: tuple[int, int]) -> int:
        return reduction(size) if annotated_size in (None, size, size[::-1]) else 1

    loaded = _decode(_content(path), str(path), value_range, allowed)
    image, size = loaded.image, loaded.size
    upright = _upright(image)
    if upright is not image and is_turned(image):
        size = size[::-1]
    if annotated_size is not None and size != annotated_size:
        upright, size = image, loaded.size
    if annotated_size is not None and size != annotated_size:
        raise DataError(
            f"{path}: expected an image of {_format_size(annotated_size)} pixels, the size of "
            f"{size_source}, got one of {_format_size(size)} (height x width)"
        )
    pixels = _pixels(upright, str(path), value_range)
    return DecodedImage(pixels, size, loaded.factor, loaded.faults)


def value_range_of(path: str | Path) -> ValueRange | None:
    """Returns the smallest and largest value of an image file of more than 8 bits, else None.

    Raises:
        DataError: If the file is missing or no image.
    """
    with image_errors(path), Image.open(path) as image:
        if not is_deep(image):
            return None
    return range_of(_decode(_content(path), str(path), None).image)


def _content(path: str | Path) -> bytes:
    with image_errors(path):
        return Path(path).read_bytes()


def image_size(path: str | Path) -> tuple[int, int]:
    """Returns the (height, width) of an image file, upright, without decoding its pixels.

    Raises:
        DataError: If the file is missing or no image.
    """
    with image_errors(path), Image.open(path) as image:
        turned = is_turned(image)
        width, height = image.size
        return (width, height) if turned else (height, width)


def is_turned(image: Image.Image) -> bool:
    """Returns True if the camera's orientation tag swaps height and width of an image."""
    try:
        return image.getexif().get(_ORIENTATION, 1) in _TURNED
    except Exception:  # of almost any class
        return False  # only the tags are damaged


def decode_image(
    content: bytes, name: str = "bytes", value_range: ValueRange | None = None
) -> tuple[UInt8[np.ndarray, "H W 3"], tuple[str, ...]]:
    """Decodes the content of an image file as upright RGB, as `read_image` does.

    Args:
        content: The bytes of an image file.
        name: Name of the bytes in messages.
        value_range: Values of an image of more than 8 bits that become 0 and 255.

    Returns:
        The pixels, and a phrase for each fault that was worked around.

    Raises:
        DataError: If the bytes are no image.
    """
    loaded = _decode(content, name, value_range)
    return _pixels(_upright(loaded.image), name, value_range), loaded.faults


def upright_rgb(
    image: Image.Image, value_range: ValueRange | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the RGB pixels of an image of any mode, turned by its orientation tag (EXIF)."""
    return _pixels(_upright(image), "image", value_range)


@dataclass(frozen=True)
class _Loaded:
    """An image of PIL as stored, not turned; its size before it was reduced, and faults."""

    image: Image.Image
    size: tuple[int, int]
    factor: int
    faults: tuple[str, ...]


def _decode(
    content: bytes, name: str, value_range: ValueRange | None, reduction: Reduction = unreduced
) -> _Loaded:
    with image_errors(name):
        return _load(content, value_range, reduction)


def _load(content: bytes, value_range: ValueRange | None, reduction: Reduction) -> _Loaded:
    opened = _open(content, value_range, reduction)
    try:
        opened.image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        opened = _open(content, value_range, reduction)
        _load_truncated(opened.image)
        return replace(opened, faults=(*opened.faults, "truncated: the missing part is blank"))
    return opened


def _open(content: bytes, value_range: ValueRange | None, reduction: Reduction) -> _Loaded:
    image = Image.open(BytesIO(content))
    width, height = image.size
    factor = 1
    if image.format in _REDUCIBLE:
        factor = reduction((width, height) if is_turned(image) else (height, width))
        image.draft(image.mode, (width // factor, height // factor))
    return _Loaded(image, (height, width), factor, depth_fault(image, value_range))


def _load_truncated(image: Image.Image) -> None:
    # PIL offers this tolerance only as a switch of the whole process.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of almost any class
        return image  # only the tags are damaged


def _pixels(
    image: Image.Image, name: str, value_range: ValueRange | None
) -> UInt8[np.ndarray, "H W 3"]:
    with image_errors(name):
        try:
            return np.asarray(_rgb(image, value_range))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None


def _rgb(image: Image.Image, value_range: ValueRange | None) -> Image.Image:
    if is_deep(image):  # PIL would clip to white instead of scaling
        return Image.fromarray(to_8_bits(image, value_range)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what PIL asks for before dropping the transparency
    return image.convert("RGB")


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
