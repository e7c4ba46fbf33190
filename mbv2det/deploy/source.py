"""What inputs yield: images with their names, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from mbv2det.tasks.result_files import ImageInfo


@dataclass(frozen=True)
class Video:
    """The video that a frame belongs to.

    Attributes:
        name: Name of the annotated video, unique within a run.
        fps: Frames per second.
    """

    name: str
    fps: float


@dataclass(frozen=True)
class InputImage:
    """An image to predict.

    Attributes:
        info: Names of the image in result files.
        pixels: RGB.
        video: Video that the image is a frame of; None for an image file.
        faults: Faults of the file that were worked around, one phrase each.
    """

    info: ImageInfo
    pixels: UInt8[np.ndarray, "H W 3"]
    video: Video | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """An input that cannot be read.

    Attributes:
        reason: One line that names the file.
    """

    reason: str


@runtime_checkable
class Source(Protocol):
    """Images in order."""

    def num_images(self) -> int | None:
        """Number of the images; None if nobody knows, as with a camera."""
        ...

    def __iter__(self) -> Iterator[InputImage | Unreadable]: ...
