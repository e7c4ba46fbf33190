from itertools import count

import pytest
from PIL import Image

from mbv2det.deploy.inputs import find_sources
from mbv2det.deploy.read_ahead import read_ahead, read_batches
from mbv2det.deploy.source import Unreadable
from mbv2det.deploy.video import VideoSource
from mbv2det.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.png", "a/2.PNG", "a/b/1.png", "c/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / name)
    (tmp_path / "a/notes.txt").write_text("no image")
    return tmp_path


def infos(*inputs, out=None):
    sources = find_sources([str(path) for path in inputs], out)
    return [image.info for source in sources for image in source]


def file_names(*inputs, out=None):
    return [info.file_name for info in infos(*inputs, out=out)]


def test_folders_are_searched_to_any_depth_for_images_and_videos_alone(folder):
    assert file_names(folder / "a") == ["1.png", "2.PNG", "b/1.png"]


def test_names_are_paths_below_the_input_so_that_equal_stems_stay_apart(folder):
    assert [info.name for info in infos(folder / "a")] == ["1", "2", "b/1"]
    assert [info.image_id for info in infos(folder / "a")] == [1, 2, "b/1"]


def test_equal_paths_of_two_inputs_get_the_folders_that_tell_them_apart(folder):
    assert file_names(folder / "a", folder / "c") == ["a/1.png", "2.PNG", "b/1.png", "c/1.png"]
    assert file_names(folder / "a/1.png", folder / "c/1.png") == ["a/1.png", "c/1.png"]


def test_one_stem_with_two_suffixes_gives_two_names(folder):
    Image.new("RGB", (6, 4)).save(folder / "c/1.bmp")
    assert [info.name for info in infos(folder / "c")] == ["1", "1_2"]


def test_one_number_written_in_two_ways_gives_two_ids(folder):
    Image.new("RGB", (6, 4)).save(folder / "c/01.png")
    assert [info.image_id for info in infos(folder / "c")] == [1, "1"]


def test_a_file_that_two_inputs_contain_is_taken_once(folder):
    assert file_names(folder / "c", folder / "c/1.png") == ["1.png"]


def test_globs_take_files_and_folders_relative_to_their_fixed_part(folder):
    assert sorted(file_names(folder / "*/1.png")) == ["a/1.png", "c/1.png"]
    assert sorted(file_names(folder / "**/b")) == ["a/b/1.png"]
    with pytest.raises(ConfigError, match=r"none that match .*\*\.gif"):
        find_sources([str(folder / "*.gif")])


def test_brackets_in_the_name_of_a_file_are_no_glob(folder):
    (folder / "c/1.png").rename(folder / "c/x[1].png")
    assert file_names(folder / "c/x[1].png") == ["x[1].png"]


def test_hidden_files_are_left_out_and_counted(folder, capsys):
    for name in ("a/._1.png", "a/.ipynb_checkpoints/1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert file_names(folder / "a") == ["1.png", "2.PNG", "b/1.png"]
    assert "2 hidden files left out" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["a", "a/out"])
def test_earlier_results_below_the_input_are_left_out(folder, capsys, out):
    (folder / out / "pictures/b").mkdir(parents=True)
    (folder / out / "pictures/b/1.jpg").write_bytes(b"")
    assert file_names(folder / "a", out=folder / out) == ["1.png", "2.PNG", "b/1.png"]
    assert "1 files of earlier results left out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere", "nowhere/x.jpg", "camera:x"])
def test_an_input_that_does_not_exist_is_an_error(folder, name):
    with pytest.raises(ConfigError, match=f"none at .*{name}"):
        find_sources([str(folder / name)])


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no images or videos"):
        find_sources([str(tmp_path)])


def test_cameras_and_streams_are_sources_without_a_length(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = find_sources(["camera:1", "0", "rtsp://me:secret@host/live?key=1"])
    assert sources == [
        VideoSource(1, "camera:1", "camera_1"),
        VideoSource(0, "camera:0", "camera_0"),
        VideoSource("rtsp://me:secret@host/live?key=1", "rtsp://host/live", "host_live"),
    ]
    assert [source.num_images() for source in sources] == [None] * 3


def test_a_file_that_is_named_as_a_camera_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (6, 4)).save("7", format="png")
    assert file_names("7") == ["7"]


def test_batches_hold_unreadable_files_in_their_place(folder):
    (folder / "a/1.png").write_bytes(b"no image")
    batches = list(read_batches(find_sources([str(folder / "a")]), 2))
    assert [len(batch) for batch in batches] == [2, 1]
    assert isinstance(batches[0][0], Unreadable)
    assert "1.png" in batches[0][0].reason


def test_batches_of_large_images_are_smaller(folder, monkeypatch):
    monkeypatch.setattr("mbv2det.deploy.read_ahead._BATCH_PIXELS", 2 * 6 * 4)
    batches = list(read_batches(find_sources([str(folder)]), 8))
    assert [len(batch) for batch in batches] == [2, 2]


def test_reading_ahead_keeps_the_order_and_passes_errors_on():
    def items():
        yield from range(5)
        raise OSError("gone")

    ahead = read_ahead(items())
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_reading_ahead_stops_with_its_reader():
    numbers = count()
    ahead = read_ahead(numbers, 2)
    assert next(ahead) == 0
    ahead.close()
    assert next(numbers) <= 4  # the one returned, two ahead and the one that took its place
