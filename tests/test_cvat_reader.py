import numpy as np
import pytest
from conftest import write_noise

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.splits import read_split
from mbv2det.data.xml_files import read_children
from mbv2det.errors import ConfigError, DataError

BOX = '<box label="dog" xtl="2.00" ytl="3.00" xbr="12.50" ybr="13.00"/>'
POLYGON = '<polygon label="cat" points="2.00,3.00;12.00,3.00;12.00,13.00;2.00,13.00"/>'


def write(root, *shapes, name="a.png", head="", size='width="30" height="20"', file="a.png"):
    write_noise(root / "images" / file, 20, 30)
    image = f'<image id="0" name="{name}" subset="train" {size}>{"".join(shapes)}</image>'
    (root / "annotations.xml").write_text(f"<annotations>{head}{image}</annotations>")
    return root


def read(root, masks=False, **split):
    config = DataConfig(root=str(root), format="cvat")
    where = SplitConfig(images="images", **split)
    return read_split(config, where, "data.train", boxes=True, masks=masks)


def refused(root, error=DataError, **split):
    with pytest.raises(error) as caught:
        read(root, **split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_and_several_labels(tmp_path):
    annotations = read(write(tmp_path, BOX, POLYGON))
    assert annotations.objects.boxes.tolist() == [[2, 3, 12.5, 13], [2, 3, 12, 13]]
    assert annotations.objects.label_map.names == ("cat", "dog")
    assert annotations.size(0) == (20, 30)


def test_classes_are_the_declared_labels_in_their_order(tmp_path):
    names = "".join(f"<label><name>{n}</name></label>" for n in ("zebra", " dog ", "cat"))
    head = f"<meta><project><labels>{names}</labels></project></meta>"
    annotations = read(write(tmp_path, BOX, head=head))
    assert annotations.objects.label_map.names == ("zebra", "dog", "cat")


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<ellipse label="x" cx="15" cy="10" rx="5" ry="3"/>', (10, 7, 20, 13)),
        ('<ellipse label="x" cx="15" cy="10" rx="5" ry="3" rotation="90"/>', (12, 5, 18, 15)),
        ('<box label="x" xtl="10" ytl="8" xbr="20" ybr="12" rotation="90"/>', (13, 5, 17, 15)),
        ('<mask label="x" rle="0, 2, 2, 2" left="4" top="5" width="3" height="2"/>', (4, 5, 7, 7)),
    ],
)
def test_shapes_have_boxes_and_masks(tmp_path, shape, box):
    annotations = read(write(tmp_path, shape), masks=True)
    np.testing.assert_allclose(annotations.objects.boxes, [box], atol=1e-9)
    mask = annotations.mask(0)
    x_min, y_min, x_max, y_max = box
    assert mask[y_min:y_max, x_min:x_max].sum() == mask.sum() > 0


def test_masks_are_run_lengths_by_rows(tmp_path):
    mask = '<mask label="x" rle="0, 2, 2, 2" left="4" top="5" width="3" height="2"/>'
    annotations = read(write(tmp_path, mask), masks=True)
    assert np.argwhere(annotations.mask(0)).tolist() == [[5, 4], [5, 5], [6, 5], [6, 6]]


def test_the_box_of_an_object_without_outline_is_ignored_in_masks(tmp_path):
    far = '<box label="dog" xtl="20" ytl="2" xbr="25" ybr="8"/>'
    annotations = read(write(tmp_path, POLYGON, far), masks=True)
    assert np.unique(annotations.mask(0)[2:8, 20:25]).tolist() == [255]


def test_shapes_of_one_group_are_one_object(tmp_path):
    first = POLYGON.replace("<polygon", '<polygon group_id="3"')
    second = '<polygon label="cat" group_id="3" points="20,3;25,3;25,9"/>'
    assert read(write(tmp_path, first, second)).objects.boxes.tolist() == [[2, 3, 25, 13]]


def test_shapes_without_area_are_left_out_and_counted(tmp_path):
    annotations = read(write(tmp_path, BOX, '<tag label="x"/>', '<points label="x" points="1,1"/>'))
    assert len(annotations.objects) == 1
    assert [line.split(":")[0] for line in annotations.faults.lines()] == [
        "1 shapes without an area left out (tag)",
        "1 shapes without an area left out (points)",
    ]


def test_a_subset_is_chosen_by_split(tmp_path):
    write(tmp_path, BOX)
    assert len(read(tmp_path, split="train")) == 1
    assert "its subsets are 'train'" in refused(tmp_path, split="val")
    assert refused(tmp_path, ConfigError, split=("train", "val")).startswith("data.train.split")


@pytest.mark.parametrize("name", ["C:\\cvat\\a.png", "images/a.png", "images\\a.png", "/srv/a.png"])
def test_names_of_another_machine_are_found_by_their_end_and_counted(tmp_path, name):
    annotations = read(write(tmp_path, BOX, name=name))
    assert annotations.path(0) == tmp_path / "images/a.png"
    assert "images named with folders of another machine" in annotations.faults.lines()[0]


def test_a_name_cannot_leave_the_root(tmp_path):
    write_noise(tmp_path.parent / "out.png", 20, 30)
    line = refused(write(tmp_path, BOX, name="../../out.png"))
    assert "expected a path inside of data.root" in line


def test_a_missing_image_names_the_nearest(tmp_path):
    line = refused(write(tmp_path, BOX, name="photo_1.png", file="photo_01.png"))
    assert line.endswith(f"did you mean {tmp_path}/images/photo_01.png?")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (BOX.replace("2.00", "two"), "box 1: expected a number as xtl, got 'two'"),
        (BOX.replace('xtl="2.00"', ""), "box 1: expected a number as xtl, got None"),
        (BOX.replace("dog", " "), "box 1: expected the attribute label"),
        (POLYGON.replace("2.00,3.00;", "2.00;"), "polygon 1: expected three points or more"),
        (POLYGON.replace("2.00,3.00;", "a,b;"), "polygon 1: expected numbers as points"),
        ('<mask label="x" rle="9" left="0" top="0" width="2" height="2"/>', "mask 1: expected run"),
        ('<mask label="x" rle="1,3" left="29" top="0" width="2" height="2"/>', "inside of the"),
        ("<cube/>", "expected shapes (box, polygon"),
    ],
)
def test_a_wrong_shape_is_named_with_file_image_and_number(tmp_path, shape, expected):
    line = refused(write(tmp_path, shape))
    assert line.startswith(f"{tmp_path}/annotations.xml: image a.png: ")
    assert expected in line


@pytest.mark.parametrize("size", ['width="30"', 'width="x" height="20"', 'width="0" height="20"'])
def test_a_wrong_size_is_one_line(tmp_path, size):
    assert "image a.png: expected a number" in refused(write(tmp_path, BOX, size=size))


def test_tracks_are_refused(tmp_path):
    write(tmp_path, BOX, head="<track/>")
    assert "expected 'CVAT for images', got tracks" in refused(tmp_path)


def test_a_document_type_is_refused(tmp_path):
    write(tmp_path, BOX)
    path = tmp_path / "annotations.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + path.read_text())
    assert "expected XML without a document type" in refused(tmp_path)


CUT_OFF = {
    "within a tag": ('<annotations><image name="' + "x" * 1_000_000, "is it cut off"),
    "between tags": ("<annotations>" + "<tag/>" * 100_000, "is it cut off"),
    "nested": ("<annotations>" + "<a>" * 1_000 + "</a>" * 1_000, "at most 100 elements within"),
    "one end tag": ("<annotations><image></image>", "expected XML, got no element found"),
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_file_that_is_cut_off_is_refused(tmp_path, name):
    text, message = CUT_OFF[name]
    path = tmp_path / "annotations.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_children(path))


def test_the_children_of_a_file_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "annotations.xml"
    body = "".join(f'<image name="{index}"><box/></image>' for index in range(50_000))
    path.write_text(f"<?xml version='1.0' encoding='utf-8'?><annotations>{body}</annotations>")
    children = read_children(path)
    first = next(children)
    assert (first.tag, first.get("name"), len(first)) == ("image", "0", 1)
    names = [child.get("name") for child in children]
    assert names == [str(index) for index in range(1, 50_000)]
