"""Errors of image files in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mbv2det.errors import DataError


@contextmanager
def image_errors(name: str | Path, expected: str = "an image file") -> Iterator[None]:
    """Turns whatever reading an image raises into a `DataError` that names the file.

    Args:
        name: Path of the file, or what its bytes are called in messages.
        expected: What the file should be, such as `a mask`.

    Raises:
        DataError: If the file is missing, no image, damaged, or too large to be decoded.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: expected {expected}, found none") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: expected {expected}, got a file of another kind") from None
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(
            f"{name}: expected at most {limit // 10**6} million pixels, got more ({error}); scale "
            "the image down or cut it into parts"
        ) from None
    except MemoryError:
        raise DataError(f"{name}: too large for the memory of this machine") from None
    # Damaged files make PIL's decoders raise errors of almost any class, TypeError and
    # ZeroDivisionError among them.
    except Exception as error:
        done = "read" if getattr(error, "errno", None) else "decoded"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{name}: cannot be {done} ({reason})") from None
