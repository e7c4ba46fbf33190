"""Videos, cameras and streams: reading frames, and writing an annotated video, with OpenCV."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mbv2det.deploy.source import InputImage, Unreadable, Video
from mbv2det.errors import ConfigError
from mbv2det.tasks.result_files import ImageInfo

_DEFAULT_FPS = 25.0  # of cameras and streams that name none
_HIGHEST_FPS = 240.0  # above it, streams state a clock and no rate
_CODEC = "mp4v"  # MPEG-4 part 2: the mp4 codec that every build of OpenCV has


@dataclass(frozen=True)
class VideoSource:
    """Frames of a video file, camera or stream.

    Attributes:
        address: Path, address of a stream, or number of a camera.
        file_name: What names it in records.
        name: Name of the annotated video.
    """

    address: str | int
    file_name: str
    name: str

    def num_images(self) -> int | None:
        """Returns the number of frames that a file states; None if it states none."""
        if isinstance(self.address, int) or "://" in self.address:
            return None
        capture = cv2.VideoCapture(self.address)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return count if count > 0 else None

    def __iter__(self) -> Iterator[InputImage | Unreadable]:
        capture = cv2.VideoCapture(self.address)
        try:
            if not capture.isOpened():
                yield Unreadable(f"{self.file_name}: expected a video or camera, cannot open it")
                return
            yield from self._frames(capture)
        finally:
            capture.release()

    def _frames(self, capture: cv2.VideoCapture) -> Iterator[InputImage | Unreadable]:
        fps = capture.get(cv2.CAP_PROP_FPS)
        video = Video(self.name, fps if 0 < fps <= _HIGHEST_FPS else _DEFAULT_FPS)
        number = 0
        while True:
            grabbed, frame = capture.read()
            if not grabbed:
                break
            # A name with the suffix of the video is no path of an image beside it.
            name = f"{self.file_name}/{number:06d}"
            size = (frame.shape[0], frame.shape[1])
            pixels = np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            yield InputImage(ImageInfo(name, self.file_name, size, frame=number), pixels, video)
            number += 1
        if number == 0:
            yield Unreadable(f"{self.file_name}: expected a video, got one without a frame")


class VideoFile:
    """An annotated video that is being written.

    Args:
        path: mp4 file to write; folders are made.
        fps: Frames per second.
        size: (height, width) of the frames in pixels; smaller pictures get a white border on the
            right and at the bottom, larger ones are cut there.

    Raises:
        ConfigError: If OpenCV cannot write such a video.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)  # codecs want even ones
        code = cv2.VideoWriter.fourcc(*_CODEC)
        self._writer = cv2.VideoWriter(str(path), code, fps, self.size[::-1])
        if not self._writer.isOpened():
            raise ConfigError(
                f"{path}: OpenCV cannot write a video of {self.size[0]}x{self.size[1]} pixels "
                "(height x width) there; leave pictures out of --formats"
            )

    def add(self, picture: Image.Image) -> None:
        """Appends a frame."""
        canvas = Image.new("RGB", self.size[::-1], "white")
        canvas.paste(picture, (0, 0))
        self._writer.write(cv2.cvtColor(np.asarray(canvas), cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Completes the file."""
        self._writer.release()
