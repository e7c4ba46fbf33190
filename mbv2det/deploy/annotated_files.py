"""Annotated pictures and videos, drawn and written in a thread while the network runs."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from mbv2det.atomic_write import atomic_write
from mbv2det.deploy.source import InputImage, Video
from mbv2det.deploy.video import VideoFile
from mbv2det.drawing import DrawingSizes
from mbv2det.tasks.result_files import PICTURES, VIDEOS
from mbv2det.tasks.task import Prediction, Task, draw_prediction

_QUALITY = 92
_JPEG_SIDE = 65_500  # JPEG has no larger ones
_PENDING = 8  # pictures that wait to be written


class AnnotatedFiles:
    """Every image with its prediction drawn on it: `pictures/NAME.jpg`, and `videos/NAME.mp4`.

    Args:
        out: Folder to write to.
        tasks: Tasks of the model.
        min_score: Lowest score of the detections that are drawn.
    """

    def __init__(self, out: Path, tasks: Sequence[Task], min_score: float) -> None:
        self.out = out
        self.tasks = tasks
        self.min_score = min_score
        self.num_pictures = 0
        self.videos: list[Path] = []
        self._thread = ThreadPoolExecutor(1, "draw")
        self._pending: deque[Future[None]] = deque()
        self._video: tuple[Video, VideoFile] | None = None

    def add(self, image: InputImage, prediction: Prediction) -> None:
        """Draws and writes an image; waits while too many others wait."""
        while len(self._pending) >= _PENDING:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._write, image, prediction))

    def close(self) -> list[str]:
        """Waits for the last pictures; returns lines that tell where they are."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._thread.shutdown()
            self._close_video()
        lines = [f"video: {path}" for path in self.videos]
        if self.num_pictures:
            lines.append(f"{self.num_pictures} images: {self.out / 'pictures'}")
        return lines

    def _write(self, image: InputImage, prediction: Prediction) -> None:
        picture = draw_prediction(image.pixels, prediction, self.tasks, self.min_score)
        if image.video is not None:
            self._video_file(image.video, image).add(picture)
            return
        kind = "jpg" if max(picture.size) <= _JPEG_SIDE else "png"
        with atomic_write(self.out / PICTURES / f"{image.info.name}.{kind}") as part:
            picture.save(part, format={"jpg": "jpeg"}.get(kind, kind), quality=_QUALITY)
        self.num_pictures += 1

    def _video_file(self, video: Video, image: InputImage) -> VideoFile:
        """Returns the file of a frame's video; frames of one video follow each other."""
        if self._video is None or self._video[0] != video:
            self._close_video()
            sizes = DrawingSizes.of(Image.fromarray(image.pixels))
            below = sizes.row * sum(task.num_rows_below for task in self.tasks)
            height, width = image.info.size
            path = self.out / VIDEOS / f"{video.name}.mp4"
            self._video = (video, VideoFile(path, video.fps, (height + below, width)))
            self.videos.append(path)
        return self._video[1]

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[1].close()
            self._video = None
