"""Image files: the one reader of training, evaluation and prediction."""

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

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
    image, faults = _decode(_content(path), str(path), value_range)
    upright = _upright(image)
    if annotated_size is not None and upright.size[::-1] != annotated_size:
        upright = image
    if annotated_size is not None and upright.size[::-1] != annotated_size:
        raise DataError(
            f"{path}: expected an image of {_format_size(annotated_size)} pixels, the size of "
            f"{size_source}, got one of {_format_size(upright.size[::-1])} (height x width)"
        )
    return _pixels(upright, str(path), value_range), faults


def value_range_of(path: str | Path) -> ValueRange | None:
    """Returns the smallest and largest value of an image file of more than 8 bits, else None.

    Raises:
        DataError: If the file is missing or no image.
    """
    with image_errors(path), Image.open(path) as image:
        if not is_deep(image):
            return None
    decoded, _ = _decode(_content(path), str(path), None)
    return range_of(decoded)


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
    image, faults = _decode(content, name, value_range)
    return _pixels(_upright(image), name, value_range), faults


def upright_rgb(
    image: Image.Image, value_range: ValueRange | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the RGB pixels of an image of any mode, turned by its orientation tag (EXIF)."""
    return _pixels(_upright(image), "image", value_range)


def _decode(
    content: bytes, name: str, value_range: ValueRange | None
) -> tuple[Image.Image, tuple[str, ...]]:
    with image_errors(name):
        return _load(content, value_range)


def _load(content: bytes, value_range: ValueRange | None) -> tuple[Image.Image, tuple[str, ...]]:
    image = Image.open(BytesIO(content))
    faults = depth_fault(image, value_range)
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        return _load_truncated(content), (*faults, "truncated: the missing part is blank")
    return image, faults


def _load_truncated(content: bytes) -> Image.Image:
    # PIL offers this tolerance only as a switch of the whole process.
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image = Image.open(BytesIO(content))
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    return image


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
