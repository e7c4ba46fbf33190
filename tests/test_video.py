import cv2
import numpy as np
import pytest
from PIL import Image

from mbv2det.deploy.annotated_files import AnnotatedFiles
from mbv2det.deploy.source import InputImage, Unreadable, Video
from mbv2det.deploy.video import VideoFile, VideoSource
from mbv2det.errors import ConfigError
from mbv2det.tasks.result_files import ImageInfo
from mbv2det.tasks.task import Prediction

LEVELS = (40, 120, 200)  # of red, one a frame


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    video = VideoFile(path, 10.0, (48, 64))
    for level in LEVELS:
        video.add(Image.new("RGB", (64, 48), (level, 0, 0)))
    video.close()
    return path


def frames(path):
    return list(VideoSource(str(path), path.name, path.stem))


def test_frames_come_in_order_as_rgb_with_their_numbers(clip):
    images = frames(clip)
    assert VideoSource(str(clip), "", "").num_images() == len(images) == 3
    assert [image.info.frame for image in images] == [0, 1, 2]
    assert images[1].info == ImageInfo("clip.mp4/000001", "clip.mp4", (48, 64), frame=1)
    assert images[0].video == Video("clip", 10.0)
    for image, level in zip(images, LEVELS, strict=True):
        # The codec loses some of the colour; channels would be 40 or more apart.
        assert np.abs(image.pixels.mean((0, 1)) - (level, 0, 0)).max() < 10


def test_what_is_no_video_is_unreadable_in_one_line(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    (item,) = frames(tmp_path / "x.mp4")
    assert isinstance(item, Unreadable)
    assert item.reason == "x.mp4: expected a video or camera, cannot open it"


def test_odd_sizes_are_padded_to_even_ones(tmp_path):
    video = VideoFile(tmp_path / "odd.mp4", 5.0, (33, 47))
    video.add(Image.new("RGB", (47, 33)))
    video.close()
    assert frames(tmp_path / "odd.mp4")[0].info.size == (34, 48)


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot write a video of 0x0 pixels"):
        VideoFile(tmp_path / "x.mp4", 5.0, (0, 0))


def test_each_video_gets_a_file_and_images_between_them_a_picture(tmp_path, clip):
    files = AnnotatedFiles(tmp_path, [], 0.3)
    still = InputImage(ImageInfo("a/photo", "a/photo.jpg", (48, 64)), frames(clip)[0].pixels)
    second = VideoSource(str(clip), "other.mp4", "other")
    for image in [*frames(clip), still, *second]:
        files.add(image, Prediction())
    lines = files.close()
    assert lines == [
        f"video: {tmp_path / 'videos/clip.mp4'}",
        f"video: {tmp_path / 'videos/other.mp4'}",
        f"1 images: {tmp_path / 'pictures'}",
    ]
    assert [len(frames(tmp_path / f"videos/{name}.mp4")) for name in ("clip", "other")] == [3, 3]
    assert cv2.imread(str(tmp_path / "pictures/a/photo.jpg")).shape == (48, 64, 3)
