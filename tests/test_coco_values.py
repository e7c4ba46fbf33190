"""Values of COCO's JSON that are missing or written in another way, as other tools do."""

import json
import math

import numpy as np
import pytest
from conftest import COCO

from mbv2det.data.coco import read_coco
from mbv2det.data.coco_values import UncertainValueError, flag, number, whole_number
from mbv2det.errors import DataError

POLYGON = [[4, 3, 30, 6, 12.5, 25]]


def annotation(**changes):
    return {"id": 77, "image_id": 40, "category_id": 3, "bbox": [1, 2, 3, 4]} | changes


def with_changed(list_name, change):
    return {list_name: [record | change(record) for record in COCO[list_name]]}


def assert_same_objects(one, other):
    for name in ("starts", "boxes", "labels", "areas", "crowd"):
        np.testing.assert_array_equal(getattr(one.objects, name), getattr(other.objects, name))
    assert one.image_ids.tolist() == other.image_ids.tolist()
    assert one.objects.label_map == other.objects.label_map


@pytest.mark.parametrize("key", ["area", "iscrowd"])
def test_null_is_as_if_absent(tmp_path, make_coco, key):
    absent = [{k: v for k, v in o.items() if k != key} for o in COCO["annotations"]]
    expected = read_coco(*make_coco(tmp_path, annotations=absent))
    got = read_coco(*make_coco(tmp_path, annotations=[o | {key: None} for o in absent]))
    assert_same_objects(got, expected)
    assert got.faults.lines() == []


@pytest.mark.parametrize(
    ("list_name", "key", "write", "counted"),
    [
        ("annotations", "category_id", str, 5),
        ("annotations", "category_id", float, 5),
        ("annotations", "image_id", str, 5),
        ("annotations", "image_id", float, 5),
        ("annotations", "image_id", lambda v: f" {v}.0 ", 5),
        ("images", "id", str, 5),
        ("images", "id", float, 5),
        ("categories", "id", str, 3),
        ("categories", "id", float, 3),
        ("annotations", "area", lambda v: None if v is None else str(v), 4),
        ("annotations", "iscrowd", lambda v: str(v or 0), 5),
        ("images", "height", str, 5),
    ],
)
def test_values_of_another_type_are_read_and_counted(
    tmp_path, make_coco, list_name, key, write, counted
):
    expected = read_coco(*make_coco(tmp_path))
    changed = with_changed(list_name, lambda record: {key: write(record.get(key))})
    got = read_coco(*make_coco(tmp_path, **changed))
    if (list_name, key, write) == ("images", "id", str):  # ids that are all text keep their order
        assert sorted(got.image_ids) == sorted(expected.image_ids)
        assert len(got.objects) == len(expected.objects)
    else:
        assert_same_objects(got, expected)
    (line,) = got.faults.lines()
    assert line.startswith(f"{counted} ")
    assert ".png" in line or list_name == "categories"


def test_text_is_not_a_crowd_for_being_text(tmp_path, make_coco):
    texts = ["0", "1", "false", "True", ""]
    objects = [annotation(iscrowd=text) for text in texts]
    crowd = read_coco(*make_coco(tmp_path, annotations=objects)).objects.crowd
    assert crowd.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("value", [True, None, "x", "1e3", "36.5", 36.5, "0x10", "٣"])
def test_no_whole_number(value):
    with pytest.raises(UncertainValueError):
        whole_number(value)


@pytest.mark.parametrize("value", [True, "x", "nan", "inf", math.inf, "", "1" * 400])
def test_no_number(value):
    with pytest.raises(UncertainValueError):
        number(value)


@pytest.mark.parametrize("value", [2, -1, 0.5, "2", "yes", "none"])
def test_no_flag(value):
    with pytest.raises(UncertainValueError):
        flag(value)


@pytest.mark.parametrize("box", [None, [], "absent"])
@pytest.mark.parametrize("masks", [False, True])
def test_missing_box_is_that_of_the_outline(tmp_path, make_coco, box, masks):
    runs = {"size": [30, 40], "counts": [30 * 4 + 5, 10, 20, 10, 30 * 40 - 30 * 4 - 45]}
    objects = [annotation(segmentation=outline, bbox=box) for outline in (POLYGON, runs)]
    if box == "absent":
        objects = [{k: v for k, v in o.items() if k != "bbox"} for o in objects]
    got = read_coco(*make_coco(tmp_path, annotations=objects), masks=masks)
    np.testing.assert_array_equal(got.objects.boxes, [[4, 3, 30, 25], [4, 5, 6, 15]])
    assert got.objects.areas.tolist() == [26 * 22, 20]
    (line,) = got.faults.lines()
    assert line == "2 objects without bbox, which is taken from the outline: d.png"


@pytest.mark.parametrize("outline", [None, [], [[1, 2, 3, 4]], "text", 7])
def test_object_without_box_and_outline_is_an_error(tmp_path, make_coco, outline):
    objects = [annotation(bbox=None, segmentation=outline)]
    with pytest.raises(DataError, match=r"annotation 77: expected bbox .* or an outline"):
        read_coco(*make_coco(tmp_path, annotations=objects))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_json_of_windows_is_read(tmp_path, make_coco, encoding):
    path, images = make_coco(tmp_path)
    expected = read_coco(path, images)
    text = path.read_text()
    path.write_bytes((("\ufeff" if encoding == "utf-16-le" else "") + text).encode(encoding))
    assert_same_objects(read_coco(path, images), expected)


def test_nan_of_pandas_is_null(tmp_path, make_coco):
    categories = [c | {"name": "NaN bread"} if c["id"] == 3 else c for c in COCO["categories"]]
    objects = [annotation(area=math.nan, score=math.inf, note='a "NaN"')]
    got = read_coco(*make_coco(tmp_path, annotations=objects, categories=categories))
    assert got.objects.areas.tolist() == [12]
    assert "NaN bread" in got.objects.label_map.names


def test_file_of_images_alone_is_for_predict(tmp_path, make_coco):
    with pytest.raises(
        DataError, match=r"no list called 'annotations': .*mbv2det predict"
    ) as caught:
        read_coco(*make_coco(tmp_path, annotations=None))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "", "\ud800"])
def test_name_that_no_file_can_have_is_a_missing_image(tmp_path, make_coco, name):
    path, images = make_coco(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"1 are missing|expected JSON"):
        read_coco(path, images)


HEAD = b'{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "a"}], '
RECORD = HEAD + b'"annotations": [{"image_id": 1, "category_id": 1, '
BOMBS = {
    "nested lists": b'{"images": ' + b"[" * 5_000_000,
    "nested in a skipped key": b'{"info": ' + b"[" * 5_000_000,
    "nested outline": RECORD + b'"segmentation": ' + b"[" * 3_000_000 + b"]" * 3_000_000 + b"}]}",
    "empty records": b'{"annotations": [' + b"{}," * 10_000_000,
    "list as a box": RECORD + b'"bbox": [' + b"[]," * 10_000_000 + b"0]}]}",
    "list as an outline": RECORD + b'"segmentation": [' + b"[]," * 10_000_000 + b"0]}]}",
    "digits": b'{"images": [{"id": ' + b"9" * 10_000_000 + b"}]}",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused(tmp_path, content):
    path = tmp_path / "bomb.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bomb\.json: ") as caught:
        read_coco(path, tmp_path, masks=True)
    assert len(str(caught.value)) < 400 + len(str(path))
