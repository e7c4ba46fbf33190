import numpy as np
import pytest
from conftest import write_noise

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.splits import read_split
from mbv2det.data.yolo_file import read_yolo_file
from mbv2det.errors import ConfigError, DataError

HEAD = "nc: 2\nnames: [cat, dog]\n"


@pytest.fixture
def root(tmp_path):
    """Returns data of two images of 20x40 pixels (height x width), one with a box."""
    for name in ("a", "b"):
        write_noise(tmp_path / f"images/train/{name}.jpg", 20, 40)
    write(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5")
    write(tmp_path / "data.yaml", f"train: images/train\n{HEAD}")
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(root, key="data.train", masks=False, split=None, **data):
    config = DataConfig(root=str(root), format="yolo", **data)
    where = SplitConfig(**(split or {}))
    return read_split(config, where, key, boxes=True, masks=masks)


def refused(error, root, **arguments):
    with pytest.raises(error) as caught:
        read(root, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_are_fractions_of_width_and_height(root):
    annotations = read(root)
    np.testing.assert_allclose(annotations.objects.boxes, [[15, 5, 25, 15]])
    assert annotations.objects.label_map.names == ("cat", "dog")
    assert annotations.objects.labels.tolist() == [1]
    assert annotations.image_ids.tolist() == ["a", "b"]
    assert annotations.size(0) == (20, 40)


def test_images_without_labels_have_no_objects_and_are_counted(root):
    assert read(root).faults.lines() == [
        "1 images without a label file, taken for images without objects: b.jpg"
    ]
    line = refused(DataError, root, missing_labels="error")
    assert line.startswith(f"{root}/labels/train/b.txt: expected the labels of")


def test_an_empty_label_file_is_an_image_without_objects(root):
    write(root / "labels/train/b.txt", "\n")
    assert read(root, missing_labels="error").faults.lines() == []


def test_no_label_file_at_all_is_one_line(root):
    (root / "labels/train/a.txt").unlink()
    assert "2 of 2 images have no label file" in refused(DataError, root)


@pytest.mark.parametrize(
    "entry",
    [
        "images/train", "./images/train", "../images/train", "images\\train", "[images/train]",
        "train.txt", "[images/train/a.jpg, images/train/b.jpg]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["", "path: .\n", "path: /home/someone/data\n"])
def test_a_split_is_a_folder_a_list_or_several(root, entry, path):
    write(root / "train.txt", "./images/train/a.jpg\nC:\\data\\images\\train\\b.jpg\n")
    write(root / "data.yaml", f"{path}train: {entry}\n{HEAD}")
    annotations = read(root)
    assert [annotations.path(i).name for i in range(2)] == ["a.jpg", "b.jpg"]
    assert len(annotations.objects) == 1


def test_names_may_be_a_table(root):
    write(root / "data.yaml", "train: images/train\nnames:\n  1: dog\n  0: ' cat '\n")
    assert read(root).objects.label_map.names == ("cat", "dog")


def test_names_may_be_a_text_file(root):
    write(root / "classes.txt", "cat\ndog\n")
    split = {"annotations": "classes.txt", "images": "images/train"}
    assert read(root, split=split).objects.label_map.names == ("cat", "dog")


def test_val_may_be_called_valid(root):
    write(root / "data.yaml", f"train: images/none\nvalid: images/train\n{HEAD}")
    assert len(read(root, key="data.val")) == 2
    assert len(read(root, key="data.train", split={"split": "valid"})) == 2


def test_keypoints_are_left_out(root):
    write(root / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5 0.4 0.4 2 0.6 0.6 1")
    write(root / "data.yaml", f"train: images/train\nkpt_shape: [2, 3]\n{HEAD}")
    np.testing.assert_allclose(read(root).objects.boxes, [[15, 5, 25, 15]])


def test_polygons_give_boxes_and_masks(root):
    write(root / "labels/train/a.txt", "0 0.25 0.5 0.5 0.5 0.5 1 0.25 1")
    annotations = read(root, masks=True)
    np.testing.assert_allclose(annotations.objects.boxes, [[10, 10, 20, 20]])
    expected = np.zeros((20, 40), np.uint8)
    expected[10:20, 10:20] = 1
    np.testing.assert_array_equal(annotations.mask(0), expected)
    assert not annotations.mask(1).any()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 0.5 0.5 0.25", "expected a class and a box"),
        ("1 0.5 0.5 0.25 0.5 0.9", "expected a class and a box"),
        ("1 100 50 30 20", "expected fractions of the image (0 to 1), got 100"),
        ("1 nan 0.5 0.2 0.2", "expected fractions"),
        ("1 0.5 half 0.2 0.2", "expected numbers, got 'half'"),
        ("dog 0.5 0.5 0.2 0.2", "expected the number of a class first, got 'dog'"),
        ("2 0.5 0.5 0.2 0.2", "expected a class from 0 to 1, got 2"),
        ("-1 0.5 0.5 0.2 0.2", "expected the number of a class first, got '-1'"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(root, line, expected):
    write(root / "labels/train/a.txt", f"0 0.5 0.5 0.2 0.2\n\n{line}\n")
    message = refused(DataError, root)
    assert message.startswith(f"{root}/labels/train/a.txt: line 3: ")
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: images/train\nnames: [cat, cat]", "names: expected different names"),
        ("train: images/train\nnames: [cat]\nnc: 2", "expected nc"),
        ("train: images/train\nnames: {0: cat, 2: dog}", "names: expected the numbers 0 to 1"),
        ("train: images/train\nnames: cat", "names: expected a list"),
        ("train: images/train\nnames: [[cat]]", "names: expected text as name 0"),
        ("train: 7\nnames: [cat]", "train: expected a folder"),
        ("- train", "expected keys"),
        ("a: [", "expected plain YAML"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("a: !!python/object/apply:os.system [ls]", "expected plain YAML"),
        ("train: ../../elsewhere\nnames: [cat]", "expected a path inside of data.root"),
        ("train: /etc\nnames: [cat]", "expected a path inside of data.root"),
    ],
)
def test_a_wrong_data_yaml_is_one_line(root, text, expected):
    write(root / "data.yaml", text)
    line = refused(DataError, root)
    assert line.startswith(f"{root}/data.yaml: ")
    assert expected in line


def test_a_list_cannot_leave_the_root(root):
    write(root / "train.txt", "../outside.jpg\n")
    write(root / "data.yaml", f"train: train.txt\n{HEAD}")
    write_noise(root.parent / "outside.jpg", 8, 8)
    line = refused(DataError, root)
    assert line.startswith(f"{root}/train.txt: line 1: expected a path inside of data.root")


def test_an_unknown_split_is_named_with_those_there_are(root):
    line = refused(ConfigError, root, key="data.val")
    assert line.startswith("data.val.split: expected one of the splits in")
    assert "(train), got val" in line


def test_a_missing_data_yaml_names_a_near_one(root):
    (root / "data.yaml").rename(root / "dataset.yaml")
    assert "did you mean" in refused(DataError, root)


def test_data_yaml_may_be_in_utf16(root):
    (root / "data.yaml").write_text(f"train: images/train\n{HEAD}", encoding="utf-16")
    assert read_yolo_file(root / "data.yaml", root).names == ("cat", "dog")
