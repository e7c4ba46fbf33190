import numpy as np
import pytest

from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap


def test_box_counts_pixels_from_one_and_includes_the_last(tmp_path, make_voc):
    # Pixels 5..20 and 6..18, from 1: columns [4, 20) and rows [5, 18) from 0; 16 x 13 pixels.
    annotations = read_voc([make_voc(tmp_path, {"a": make_voc.object(box=(5, 6, 20, 18))})])
    np.testing.assert_array_equal(annotations.objects.boxes, [[4, 5, 20, 18]])
    assert annotations.objects.areas.tolist() == [16 * 13]


def test_box_of_the_whole_image_is_not_counted(tmp_path, make_voc):
    annotations = read_voc([make_voc(tmp_path, {"a": make_voc.object(box=(1, 1, 40, 30))})])
    np.testing.assert_array_equal(annotations.instances(0, (30, 40)).boxes, [[0, 0, 40, 30]])
    assert annotations.faults.lines() == []


def test_coordinates_may_be_fractions(tmp_path, make_voc):
    annotations = read_voc(
        [make_voc(tmp_path, {"a": make_voc.object(box=(5.5, "6.25", 20, 18.75))})]
    )
    np.testing.assert_array_equal(annotations.objects.boxes, [[4.5, 5.25, 20, 18.75]])


def test_difficult_objects_are_flagged_and_ignored(tmp_path, make_voc):
    objects = make_voc.object(difficult=1) + make_voc.object(difficult=0) + make_voc.object()
    annotations = read_voc([make_voc(tmp_path, {"a": objects})])
    assert annotations.objects.difficult.tolist() == [True, False, False]
    assert not annotations.objects.crowd.any()
    assert annotations.instances(0, (30, 40)).ignore.tolist() == [True, False, False]


def test_size_is_height_then_width(tmp_path, make_voc):
    assert read_voc([make_voc(tmp_path, {"a": make_voc.object()})]).size(0) == (30, 40)


def test_missing_size_is_none(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": ""})
    xml = f"<annotation>{make_voc.object()}</annotation>"
    (source.annotations / "a.xml").write_text(xml)
    assert read_voc([source]).size(0) is None


def test_parts_of_objects_are_left_out(tmp_path, make_voc):
    part = "<name>head</name><bndbox><xmin>1</xmin></bndbox>"
    annotations = read_voc([make_voc(tmp_path, {"a": make_voc.object(part=part)})])
    assert annotations.objects.label_map.names == ("dog",)
    assert len(annotations.objects) == 1


def test_classes_are_the_sorted_names_of_the_objects(tmp_path, make_voc):
    objects = "".join(make_voc.object(name) for name in ("sofa", "dining table", " cat\n", "sofa"))
    annotations = read_voc([make_voc(tmp_path, {"a": objects})])
    assert annotations.objects.label_map.names == ("cat", "dining table", "sofa")
    assert annotations.objects.labels.tolist() == [2, 1, 0, 2]


def test_images_without_objects_are_kept(tmp_path, make_voc):
    annotations = read_voc([make_voc(tmp_path, {"a": "", "b": make_voc.object()})])
    assert annotations.image_ids.tolist() == ["a", "b"]
    assert np.diff(annotations.objects.starts).tolist() == [0, 1]


@pytest.mark.parametrize("box", [(5, 6, 5, 18), (5, 6, 20, 6), (20, 6, 5, 18)])
def test_degenerate_box_is_dropped_with_count_and_file(tmp_path, make_voc, box):
    objects = make_voc.object(box=box) + make_voc.object("cat")
    annotations = read_voc(
        [make_voc(tmp_path, {"first": objects, "second": make_voc.object("cat")})]
    )
    (line,) = annotations.faults.lines()
    assert line.startswith("1 degenerate boxes")
    assert line.endswith(": first.xml")
    assert annotations.objects.label_map.names == ("cat",)
    assert annotations.objects.starts.tolist() == [0, 1, 2]


def test_box_outside_the_image_is_counted(tmp_path, make_voc):
    annotations = read_voc([make_voc(tmp_path, {"a": make_voc.object(box=(5, 6, 60, 18))})])
    assert annotations.faults.lines() == [
        "1 boxes reaching out of the image by more than a pixel clipped: a.png"
    ]
    assert annotations.objects.boxes[0, 2] == 60
    assert annotations.instances(0, (30, 40)).boxes[0, 2] == 40


@pytest.mark.parametrize("position", range(4))
def test_missing_corner_is_one_error_naming_file_and_tag(tmp_path, make_voc, position):
    box = [5, 6, 20, 18]
    box[position] = None
    tag = ("xmin", "ymin", "xmax", "ymax")[position]
    with pytest.raises(DataError, match=rf"a\.xml: dog: .*<{tag}>") as caught:
        read_voc([make_voc(tmp_path, {"a": make_voc.object(box=box)})])
    assert "\n" not in str(caught.value)


def test_missing_bndbox_is_an_error_naming_the_file(tmp_path, make_voc):
    with pytest.raises(DataError, match=r"a\.xml: dog: .*<xmin>"):
        read_voc([make_voc(tmp_path, {"a": "<object><name>dog</name></object>"})])


def test_missing_name_is_an_error_naming_file_and_tag(tmp_path, make_voc):
    with pytest.raises(DataError, match=r"a\.xml: .*<name>"):
        read_voc([make_voc(tmp_path, {"a": make_voc.object("")})])


@pytest.mark.parametrize("text", ["six", "nan"])
def test_coordinate_that_is_no_number_is_an_error(tmp_path, make_voc, text):
    with pytest.raises(DataError, match=rf"a\.xml: dog: .*<ymin>, got '{text}'"):
        read_voc([make_voc(tmp_path, {"a": make_voc.object(box=(5, text, 20, 18))})])


def test_size_that_is_no_number_is_an_error(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": make_voc.object()})
    path = source.annotations / "a.xml"
    path.write_text(path.read_text().replace("<width>40<", "<width>wide<"))
    with pytest.raises(DataError, match=r"a\.xml: .*<width>, got 'wide'"):
        read_voc([source])


def test_broken_xml_is_an_error(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": "<object>"})
    with pytest.raises(DataError, match=r"a\.xml: expected XML"):
        read_voc([source])


def test_missing_xml_is_an_error(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": make_voc.object(), "b": ""}, ["a", "b"])
    (source.annotations / "b.xml").unlink()
    with pytest.raises(DataError, match=r"b\.xml: expected an annotation, found none"):
        read_voc([source])


def test_missing_image_is_an_error(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": make_voc.object(), "b": ""})
    (source.images / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"JPEGImages/b\.\*: expected the image of .*b\.xml, found none"
    ):
        read_voc([source])


def test_missing_list_is_an_error(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": make_voc.object()})
    with pytest.raises(DataError, match=r"train\.txt: expected a list of image names"):
        read_voc([VOCSource(source.images, source.annotations, tmp_path / "train.txt")])


@pytest.mark.parametrize("folder", ["images", "annotations"])
def test_missing_folder_is_an_error(tmp_path, make_voc, folder):
    source = make_voc(tmp_path, {"a": make_voc.object()})
    getattr(source, folder).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{getattr(source, folder).name}: expected a folder"):
        read_voc([source])


def test_split_without_any_object_has_no_classes(tmp_path, make_voc):
    annotations = read_voc([make_voc(tmp_path, {"a": "", "b": ""})])
    assert (len(annotations), len(annotations.objects)) == (2, 0)
    assert annotations.objects.boxes.shape == (0, 4)
    label_map = LabelMap(("dog",), (1,))
    assert annotations.with_label_map(label_map).objects.label_map == label_map


def test_list_gives_the_images_in_its_order(tmp_path, make_voc):
    objects = dict.fromkeys(["a", "b", "c"], make_voc.object())
    annotations = read_voc([make_voc(tmp_path, objects, ["c", "", "a"])])
    assert annotations.image_ids.tolist() == ["c", "a"]


@pytest.mark.parametrize(
    "line", ["000001 -1", "000001  1", "000001.png", "000001\t0", "000001.png 1"]
)
def test_list_may_have_a_second_column_or_suffixes(tmp_path, make_voc, line):
    annotations = read_voc([make_voc(tmp_path, {"000001": make_voc.object()}, [line])])
    assert annotations.image_ids.tolist() == ["000001"]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("stem", ["2012.07.31", "my image"])
def test_file_names_may_contain_dots_and_spaces(tmp_path, make_voc, stem, listed):
    source = make_voc(tmp_path, {stem: make_voc.object()}, [stem] if listed else None)
    assert read_voc([source]).path(0) == source.images / f"{stem}.png"


def test_several_lists_become_one_split(tmp_path, make_voc):
    first = make_voc(tmp_path / "2007", {"a": make_voc.object("dog"), "b": ""})
    second = make_voc(tmp_path / "2012", {"a": make_voc.object("cat", (1, 2, 3, 4))})
    annotations = read_voc([first, second])
    assert annotations.files.tolist() == [
        str(first.images / "a.png"), str(first.images / "b.png"), str(second.images / "a.png")
    ]  # fmt: skip
    assert annotations.objects.starts.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(annotations.objects.boxes, [[4, 5, 20, 18], [0, 1, 3, 4]])
    assert [annotations.objects.label_map.names[label] for label in annotations.objects.labels] == [
        "dog",
        "cat",
    ]


# Splits of bccd: images, boxes left, and the file whose one box has no width.
@pytest.mark.parametrize(
    ("split", "images", "boxes", "faulty"),
    [
        ("train", 205, 2804, "BloodImage_00343.xml"),
        ("val", 87, 1137, "BloodImage_00338.xml"),
        ("test", 72, 945, None),
    ],
)
def test_real_boxes_without_width_are_dropped_with_a_count(real_data, split, images, boxes, faulty):
    root = real_data("bccd")
    listed = root / f"ImageSets/Main/{split}.txt"
    annotations = read_voc([VOCSource(root / "JPEGImages", root / "Annotations", listed)])
    assert (len(annotations), len(annotations.objects)) == (images, boxes)
    assert annotations.objects.label_map.names == ("Platelets", "RBC", "WBC")
    lines = annotations.faults.lines()
    if faulty is None:
        assert lines == []
    else:
        assert lines == [f"1 degenerate boxes (zero width or height) dropped: {faulty}"]


def test_real_folders_of_other_names_are_read(real_data):
    root = real_data("kangaroo")
    annotations = read_voc([VOCSource(root / "images", root / "annots", None)])
    assert (len(annotations), len(annotations.objects)) == (164, 266)
    assert annotations.objects.label_map.names == ("kangaroo",)


def test_a_line_that_names_a_file_is_that_file(tmp_path, make_voc):
    objects = {name: make_voc.object() for name in ("Leaf", "Leaf 1", "Stem -1", "Root")}
    lines = ["Leaf 1", "Leaf", "Stem -1", "Root  1", "Leaf 0"]
    annotations = read_voc([make_voc(tmp_path, objects, lines)])
    assert annotations.image_ids.tolist() == ["Leaf 1", "Leaf", "Stem -1", "Root", "Leaf"]


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("1", True), (" 1 ", True), ("1.0", True), ("True", True), ("0", False), ("false", False)],
)
def test_difficult_is_a_flag_in_any_writing(tmp_path, make_voc, text, difficult):
    annotations = read_voc([make_voc(tmp_path, {"a": make_voc.object(difficult=text)})])
    assert annotations.objects.difficult.tolist() == [difficult]


@pytest.mark.parametrize("text", ["2", "yes", "-1"])
def test_difficult_that_is_no_flag_is_an_error(tmp_path, make_voc, text):
    with pytest.raises(DataError, match=r"a\.xml: dog: expected 0 or 1 in <difficult>, got the"):
        read_voc([make_voc(tmp_path, {"a": make_voc.object(difficult=text)})])


@pytest.mark.parametrize("side", ["1e308", "9" * 40, "inf", "nan"])
def test_size_beyond_any_image_is_an_error(tmp_path, make_voc, side):
    source = make_voc(tmp_path, {"a": make_voc.object()})
    file = source.annotations / "a.xml"
    file.write_text(file.read_text().replace("<width>40", f"<width>{side}"))
    with pytest.raises(DataError, match=r"a\.xml: expected a number in <width>, got"):
        read_voc([source])
