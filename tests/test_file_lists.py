"""Names, lists and encodings as other machines and tools write them."""

import json

import numpy as np
import pytest
from conftest import COCO, voc_object, write_noise
from PIL import Image

from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.coco import read_coco
from mbv2det.data.file_lists import find_file, is_inside, listed_name, read_list, read_text
from mbv2det.data.splits import read_split
from mbv2det.data.voc import VOCSource, read_voc
from mbv2det.errors import DataError

# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_may_have_any_encoding_that_names_itself(tmp_path, encoding, end):
    path = tmp_path / "list.txt"
    path.write_bytes(f"kätzchen{end}{end}b {end}".encode(encoding))
    assert read_list(path) == ["kätzchen", "b"]


@pytest.mark.parametrize("encoding", ["gbk", "utf-16-le", "latin-1"])
def test_a_list_in_another_encoding_is_one_line_with_its_number(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a\n" + "红Äé".encode(encoding, "ignore") + b"\xff")
    with pytest.raises(DataError, match=r"list\.txt: expected .* other bytes in line 2"):
        read_text(path)


NAME = "红细胞"


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("gb2312", "gb2312"), ("GBK", "gbk"), ("gb18030", "gb18030"), ("big5", "big5"),
        ("utf-8", "utf-8"), ("utf-8", "utf-8-sig"), ("utf-16", "utf-16"), (None, "utf-8"),
        ("shift_jis", "shift_jis"),
    ],
)  # fmt: skip
def test_xml_is_read_in_its_declared_encoding(tmp_path, make_voc, declared, encoding):
    name = "狗" if declared in ("shift_jis", "big5") else NAME
    source = make_voc(tmp_path, {"a": make_voc.object()})
    path = source.annotations / "a.xml"
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    path.write_bytes((head + path.read_text().replace("dog", name)).encode(encoding))
    assert read_voc([source]).objects.label_map.names == (name,)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ('<?xml version="1.0" encoding="utf-8"?>', "expected XML in utf-8, got other bytes"),
        ("", "expected XML in utf-8, got other bytes"),
        ('<?xml version="1.0" encoding="klingon"?>', "got the encoding 'klingon'"),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]>', "a document type"),
    ],
)
def test_xml_of_an_unknown_encoding_is_one_line(tmp_path, make_voc, head, expected):
    source = make_voc(tmp_path, {"a": make_voc.object()})
    path = source.annotations / "a.xml"
    name = "dog" if "DOCTYPE" in head else NAME
    path.write_bytes((head + path.read_text().replace("dog", name)).encode("gbk"))
    with pytest.raises(DataError) as caught:
        read_voc([source])
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


# Names


@pytest.mark.parametrize(
    "name", ["x/a.jpg", "x\\a.jpg", "C:\\data\\train\\x\\a.jpg", "train/x/a.jpg", "/srv/x/a.jpg"]
)
def test_a_name_of_another_machine_is_found_by_its_end(tmp_path, name):
    write_noise(tmp_path / "train/x/a.jpg", 8, 8)
    assert find_file(tmp_path / "train", name, tmp_path) == "x/a.jpg"


@pytest.mark.parametrize(
    "name", ["y/a.jpg", "../a.jpg", "..\\..\\b.jpg", "a\x00.jpg", "", "a" * 999]
)
def test_another_name_is_not_taken_for_a_file(tmp_path, name):
    # Dropping any folder would take the wrong file where folders have equal names.
    write_noise(tmp_path / "data/train/x/a.jpg", 8, 8)
    write_noise(tmp_path / "data/train/a.jpg", 8, 8)
    write_noise(tmp_path / "data/a.jpg", 8, 8)
    expected = "../a.jpg" if name == "../a.jpg" else None
    assert find_file(tmp_path / "data/train", name, tmp_path / "data") == expected
    write_noise(tmp_path / "a.jpg", 8, 8)
    assert find_file(tmp_path / "data", "../a.jpg", tmp_path / "data") is None


def test_a_folder_may_be_a_link(tmp_path):
    write_noise(tmp_path / "elsewhere/a.jpg", 8, 8)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "elsewhere")
    assert is_inside(tmp_path / "data", tmp_path / "data/images/a.jpg")
    assert find_file(tmp_path / "data/images", "a.jpg", tmp_path / "data") == "a.jpg"


@pytest.mark.parametrize(
    ("line", "known", "expected"),
    [
        ("Leaf 1", ("Leaf", "Leaf 1"), "Leaf 1"),
        ("Leaf 1", ("Leaf",), "Leaf"),
        ("Leaf 1 -1", ("Leaf", "Leaf 1"), "Leaf 1"),
        ("a/0.jpg", ("a/0", "b/0"), "a/0"),
        ("a\\0", ("a/0", "0"), "a/0"),
        ("/home/x/a/0.png 1", ("a/0", "0"), "a/0"),
        ("v1.2", ("v1.2",), "v1.2"),
    ],
)
def test_a_line_that_names_a_file_is_that_file(line, known, expected):
    assert listed_name(line, known, (".jpg", ".png")) == expected


def test_subfolders_in_vocs_lists_are_read_as_written(tmp_path, make_voc):
    (tmp_path / "Annotations/a").mkdir(parents=True)
    (tmp_path / "Annotations/b").mkdir()
    for folder, name in (("a", "cat"), ("b", "dog")):
        write_noise(tmp_path / f"JPEGImages/{folder}/0.png", 30, 40)
        xml = f"<annotation>{voc_object(name)}</annotation>"
        (tmp_path / f"Annotations/{folder}/0.xml").write_text(xml)
    (tmp_path / "list.txt").write_text("b/0\na/0.png\n")
    folders = tmp_path / "JPEGImages", tmp_path / "Annotations"
    for source in (VOCSource(*folders, tmp_path / "list.txt"), VOCSource(*folders, None)):
        annotations = read_voc([source])
        names = [annotations.objects.label_map.names[i] for i in annotations.objects.labels]
        assert dict(zip(annotations.image_ids.tolist(), names, strict=True)) == {
            "a/0": "cat", "b/0": "dog"
        }  # fmt: skip


def coco_with(make_coco, root, change):
    images = [image | {"file_name": change(image["file_name"])} for image in COCO["images"]]
    annotations, folder = make_coco(root)
    annotations.write_text(json.dumps(COCO | {"images": images}))
    return annotations, folder


@pytest.mark.parametrize("prefix", ["images\\", "images/", "C:\\my data\\images\\", "/srv/images/"])
def test_cocos_names_of_another_machine_are_found_and_counted(tmp_path, make_coco, prefix):
    annotations = read_coco(*coco_with(make_coco, tmp_path, lambda name: prefix + name))
    assert annotations.path(0) == tmp_path / "images/a.png"
    (line,) = [line for line in annotations.faults.lines() if "another machine" in line]
    assert line.startswith("5 images named with folders of another machine")


def test_cocos_missing_image_names_the_nearest(tmp_path, make_coco):
    files = coco_with(make_coco, tmp_path, lambda name: f"x_{name}")
    with pytest.raises(DataError, match=r"5 are missing; the first is x_.*; did you mean .*png\?"):
        read_coco(*files)


def test_cocos_names_cannot_leave_the_root(tmp_path, make_coco):
    files = coco_with(make_coco, tmp_path / "data", lambda name: f"../../{name}")
    for image in COCO["images"]:
        write_noise(tmp_path / image["file_name"], image["height"], image["width"])
    with pytest.raises(DataError, match=r"file_name: expected a path inside of data\.root"):
        read_coco(*files, root=tmp_path / "data")


# Hidden files

HIDDEN = ("._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/x/a.png")


@pytest.mark.parametrize("format", ["voc", "yolo", "labelme", "folder"])
def test_hidden_files_are_left_out_and_counted(tmp_path, format):
    write_noise(tmp_path / "images/a.png", 12, 16)
    for name in HIDDEN:
        write_noise(tmp_path / "images" / name, 12, 16)
    (tmp_path / "images/a.xml").write_text(f"<annotation>{voc_object()}</annotation>")
    (tmp_path / "images/._a.xml").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "images/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "images/a.json").write_text('{"shapes": []}')
    (tmp_path / "images/._a.json").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    (tmp_path / "masks").mkdir()
    Image.new("L", (16, 12)).save(tmp_path / "masks/a.png")
    Image.new("L", (16, 12)).save(tmp_path / "masks/._a.png")
    split = {"yolo": {}, "voc": {"images": "images", "annotations": "images"}}
    config = DataConfig(root=str(tmp_path), format=format, classes="auto")
    if format == "folder":
        config = DataConfig(root=str(tmp_path), format=format, classes=("background", "x"))
    where = SplitConfig(**split.get(format, {"images": "images"}))
    is_folder = format == "folder"
    annotations = read_split(config, where, "data.train", boxes=not is_folder, masks=is_folder)
    assert [annotations.path(i).name for i in range(len(annotations))] == ["a.png"]
    (line,) = [line for line in annotations.faults.lines() if "hidden" in line]
    for name in ("._a.png", ".ipynb_checkpoints", "__MACOSX"):
        assert name in line


# Classes and boxes


def test_spaces_around_class_names_are_dropped_and_case_is_said(tmp_path, make_voc):
    objects = "".join(make_voc.object(name) for name in ("RBC", "rbc ", " RBC", "R-B-C", "cat"))
    make_voc(tmp_path, {"a": objects})
    config = DataConfig(root=str(tmp_path), format="voc")
    annotations = read_split(config, SplitConfig(), "data.train", boxes=True, masks=False)
    assert annotations.objects.label_map.names == ("R-B-C", "RBC", "cat", "rbc")
    (line,) = annotations.faults.lines()
    assert line.startswith("3 classes with nearly the same name, which stay different classes")


@pytest.mark.parametrize("name", ["background", "_background_", "BG", "bccd-root"])
def test_a_background_category_without_objects_is_left_out(tmp_path, make_coco, name):
    categories = [{"id": 0, "name": name}, *COCO["categories"]]
    make_coco(tmp_path, categories=categories)
    config = DataConfig(root=str(tmp_path), format="coco")
    where = SplitConfig(annotations="instances.json", images="images")
    annotations = read_split(config, where, "data.train", boxes=True, masks=False)
    assert name not in annotations.objects.label_map.names
    assert any(name in line and "left out" in line for line in annotations.faults.lines())
    named = DataConfig(root=str(tmp_path), format="coco", classes=(name, "car"))
    kept = read_split(named, where, "data.train", boxes=True, masks=False)
    assert kept.objects.label_map.names == (name, "car")


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 0.9), (0, 0.25, 1, 1), (0.3, 0.3, 0.31, 1.0)])
def test_vocs_corners_as_fractions_are_refused(tmp_path, make_voc, box):
    with pytest.raises(DataError, match=r"a\.xml: dog: .* look like fractions .* multiply x by"):
        read_voc([make_voc(tmp_path, {"a": make_voc.object(box=box)})])


def test_cocos_boxes_as_fractions_are_refused(tmp_path, make_coco):
    boxes = [o | {"bbox": [v / 50 for v in o["bbox"]]} for o in COCO["annotations"]]
    with pytest.raises(DataError, match="look like fractions of the image, the first in"):
        read_coco(*make_coco(tmp_path, annotations=boxes))


def test_background_images_without_xml_need_a_setting(tmp_path, make_voc):
    source = make_voc(tmp_path, {"a": make_voc.object(), "b": ""}, ["a", "b"])
    (source.annotations / "b.xml").unlink()
    with pytest.raises(DataError, match=r"b\.xml: .*set data\.missing_labels to no_objects"):
        read_voc([source])
    annotations = read_voc([source], every_image=False)
    assert np.diff(annotations.objects.starts).tolist() == [1, 0]
    assert annotations.faults.lines() == [
        "1 images without an XML file, taken for images without objects: b"
    ]
    everything = VOCSource(source.images, source.annotations, None)
    assert len(read_voc([everything])) == 1
    assert len(read_voc([everything], every_image=False)) == 2


BOMB = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f'<!DOCTYPE a [<!ENTITY e0 "x">{BOMB}]><annotation>&e9;</annotation>', "a document type"),
        ("<a>" * 200_000, "expected XML, got"),
        ("<a>" * 3_000_000, "at most 500000 tags and attributes"),
        ("<a " + " ".join(f"a{i}='1'" for i in range(700_000)) + "/>", "at most 500000 tags"),
        ("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>", None),
        ("<annotation>" + " " * 10_000_000 + "</annotation>", "at most 10000000 bytes"),
    ],
    ids=["entities", "unclosed", "tags", "attributes", "nested", "large"],
)
def test_xml_bombs_are_refused_or_harmless(tmp_path, make_voc, content, expected):
    source = make_voc(tmp_path, {"a": ""})
    (source.annotations / "a.xml").write_text(content)
    if expected is None:
        assert len(read_voc([source]).objects) == 0
    else:
        with pytest.raises(DataError, match=expected):
            read_voc([source])
