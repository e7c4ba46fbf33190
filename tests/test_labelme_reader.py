import base64
import json
from io import BytesIO

import numpy as np
import pytest
from conftest import write_noise
from PIL import Image

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.splits import read_split
from mbv2det.errors import DataError

SQUARE = [[2, 3], [12, 3], [12, 13], [2, 13]]


def shape(label="dog", points=SQUARE, **keys):
    return {"label": label, "points": points, "shape_type": "polygon"} | keys


def write(root, *shapes, name="a", **keys):
    write_noise(root / f"images/{name}.png", 20, 30)
    content = {"shapes": list(shapes), "imagePath": f"{name}.png", "imageHeight": 20}
    (root / f"images/{name}.json").write_text(json.dumps(content | {"imageWidth": 30} | keys))
    return root


def read(root, masks=False, split=None, **data):
    config = DataConfig(root=str(root), format="labelme", **data)
    where = SplitConfig(images="images", **(split or {}))
    return read_split(config, where, "data.train", boxes=True, masks=masks)


def refused(root, **arguments):
    with pytest.raises(DataError) as caught:
        read(root, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "points", "box"),
    [
        ("polygon", SQUARE, (2, 3, 12, 13)),
        (None, SQUARE, (2, 3, 12, 13)),
        ("rectangle", [[12, 13], [2, 3]], (2, 3, 12, 13)),
        ("rectangle", SQUARE, (2, 3, 12, 13)),
        ("circle", [[10, 9], [15, 9]], (5, 4, 15, 14)),
    ],
)
def test_shapes_have_boxes_and_masks(tmp_path, kind, points, box):
    annotations = read(write(tmp_path, shape(points=points, shape_type=kind)), masks=True)
    np.testing.assert_allclose(annotations.objects.boxes, [box])
    mask = annotations.mask(0)
    x_min, y_min, x_max, y_max = box
    assert mask.any()
    assert mask[y_min:y_max, x_min:x_max].sum() == mask.sum()
    if kind != "circle":
        assert mask.sum() == (x_max - x_min) * (y_max - y_min)
    else:
        assert mask.sum() == pytest.approx(np.pi * 25, rel=0.1)


def test_a_mask_is_placed_at_its_corner(tmp_path):
    file = BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], bool)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    mask = shape(points=[[5, 7], [6, 8]], shape_type="mask", mask=text)
    annotations = read(write(tmp_path, mask), masks=True)
    assert np.argwhere(annotations.mask(0)).tolist() == [[7, 5], [8, 5], [8, 6]]
    np.testing.assert_allclose(annotations.objects.boxes, [[5, 7, 7, 9]])


def test_shapes_of_one_group_are_one_object(tmp_path):
    far = [[20, 3], [25, 3], [25, 9]]
    shapes = (shape(group_id=1), shape(points=far, group_id=1), shape("cat", group_id=1), shape())
    annotations = read(write(tmp_path, *shapes))
    assert annotations.objects.boxes[0].tolist() == [2, 3, 25, 13]
    assert len(annotations.objects) == 3


def test_shapes_without_area_are_left_out_and_counted(tmp_path):
    shapes = (shape(), shape(shape_type="line", points=[[1, 1], [2, 2]]), shape(shape_type="point"))
    annotations = read(write(tmp_path, *shapes))
    assert len(annotations.objects) == 1
    assert annotations.faults.lines() == [
        "1 shapes without an area left out (line): a.json",
        "1 shapes without an area left out (point): a.json",
    ]


def test_an_image_of_another_name_is_found_by_image_path(tmp_path):
    write(tmp_path, shape(), imagePath="..\\photos\\real.png")
    (tmp_path / "images/a.png").rename(tmp_path / "images/real.png")
    assert read(tmp_path).path(0).name == "real.png"


@pytest.mark.parametrize("image_path", ["../../secret.png", "/etc/secret.png", "..", ""])
def test_image_path_cannot_leave_the_folder(tmp_path, image_path):
    write_noise(tmp_path.parent / "secret.png", 20, 30)
    write(tmp_path, shape(), imagePath=image_path)
    (tmp_path / "images/a.png").unlink()
    assert "expected the image of" in refused(tmp_path)


def test_images_without_json_are_read_if_the_setting_says_so(tmp_path):
    write(tmp_path, shape())
    write_noise(tmp_path / "images/b.png", 20, 30)
    assert len(read(tmp_path)) == 1
    annotations = read(tmp_path, missing_labels="no_objects")
    assert annotations.image_ids.tolist() == ["a", "b"]
    assert annotations.faults.lines()[0].startswith("1 images without a JSON file")
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    assert "set data.missing_labels" in refused(tmp_path, split={"list": "list.txt"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shapes": 7}, "shapes: expected `array`, got `int`"),
        ({"shapes": [shape(label=None)]}, "shapes[0].label: expected"),
        ({"shapes": [shape(label=" ")]}, "shapes[0]: expected a label"),
        ({"shapes": [shape(points=[[1, 2]])]}, "shapes[0]: expected 3 points or more"),
        ({"shapes": [shape(points=[[1], [2], [3]])]}, "shapes[0].points[0]: expected"),
        ({"shapes": [shape(points="far")]}, "shapes[0].points: expected"),
        ({"shapes": [shape(shape_type="blob")]}, "expected shape_type to be one of polygon"),
        ({"shapes": [shape(shape_type="rectangle", points=[[1, 1]])]}, "expected 2 to 4 points"),
        ({"shapes": [shape(shape_type="mask", points=[[1, 1], [2, 2]])]}, "expected a PNG"),
        ({"imageHeight": "20"}, "imageHeight: expected"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(tmp_path, change, expected):
    write(tmp_path, shape())
    content = json.loads((tmp_path / "images/a.json").read_text()) | change
    (tmp_path / "images/a.json").write_text(json.dumps(content))
    line = refused(tmp_path)
    assert line.startswith(f"{tmp_path}/images/a.json: ")
    assert expected in line


def test_json_that_is_none_is_one_line(tmp_path):
    write(tmp_path, shape())
    (tmp_path / "images/a.json").write_text("{")
    assert "expected JSON" in refused(tmp_path)
    (tmp_path / "images/a.json").write_text("[" * 100_000)
    assert "a.json: " in refused(tmp_path)
