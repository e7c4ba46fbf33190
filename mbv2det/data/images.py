"""Reading image files: the one reader of training, evaluation and prediction."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from mbv2det.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(
    path: str | Path,
    annotated_size: tuple[int, int] | None = None,
    annotation: str = "the annotation",
) -> tuple[UInt8[np.ndarray, "H W 3"], tuple[str, ...]]:
    """Decodes a file as RGB, upright.

    A camera's orientation tag is obeyed, unless the annotation was plainly made on the pixels as
    stored: then those are taken. A file cut short is decoded as far as it goes.

    Args:
        path: Of the image.
        annotated_size: (height, width) that the annotation speaks of, where it says so.
        annotation: What says so, for messages.

    Returns:
        The pixels, and a phrase for each fault that was worked around.

    Raises:
        DataError: For a file that is missing or no image, or of another size than annotated.
    """
    try:
        image, faults = _decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image file, found none") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: expected an image, got a file that is none") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from None
    upright = _upright(image)
    if annotated_size is not None and upright.size[::-1] != annotated_size:
        upright = image
    if annotated_size is not None and upright.size[::-1] != annotated_size:
        raise DataError(
            f"{path}: {annotation} is of {_size(annotated_size)} pixels, "
            f"the image has {_size(upright.size[::-1])} (height x width)"
        )
    return np.asarray(_rgb(upright)), faults


def _decode(content: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    image = Image.open(BytesIO(content))
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        return _decode_truncated(content), ("truncated: what is missing is blank",)
    return image, ()


def _decode_truncated(content: bytes) -> Image.Image:
    # PIL knows this tolerance only as a process-wide switch.
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
    except (struct.error, SyntaxError, TypeError, ValueError):
        return image  # damaged tags, sound pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits to white instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what PIL asks for before dropping the transparency
    return image.convert("RGB")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
