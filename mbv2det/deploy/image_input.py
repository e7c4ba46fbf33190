"""What a predictor takes as an image, and how it becomes RGB pixels."""

from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mbv2det.data.images import decode_image, read_image, upright_rgb
from mbv2det.data.value_range import ValueRange
from mbv2det.errors import DataError

# An image: the path of a file, the bytes of a file, an image of PIL, or an array (H, W, 3) of uint8
# RGB values.
ImageInput = str | PathLike[str] | bytes | Image.Image | np.ndarray


def pixels_of(
    image: ImageInput, value_range: ValueRange | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the RGB pixels of an image.

    Files and images of PIL are treated alike: turned by their orientation tag, and converted from
    any mode. An array is taken as it is.

    Args:
        image: The image.
        value_range: Values of an image of more than 8 bits that become 0 and 255.

    Raises:
        DataError: If a file is missing or no image, or an array is not (H, W, 3) of uint8.
        TypeError: If it is none of the kinds of `ImageInput`.
    """
    if isinstance(image, np.ndarray):
        return _checked(image)
    if isinstance(image, bytes):
        return decode_image(image, value_range=value_range)[0]
    if isinstance(image, Image.Image):
        return upright_rgb(image, value_range)
    if isinstance(image, str | PathLike):
        return read_image(Path(image), value_range=value_range)[0]
    raise TypeError(
        "image: expected a path, bytes, an image of PIL or an array (height, width, 3) of uint8, "
        f"got {type(image).__name__}"
    )


def _checked(array: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    valid = array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8 and array.size > 0
    if not valid:
        raise DataError(
            "image: expected an array (height, width, 3) of uint8 RGB values, got "
            f"{array.shape} of {array.dtype}"
        )
    return array
