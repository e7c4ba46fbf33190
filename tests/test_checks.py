"""The faults of boxes, classes and files, each found where it is and nowhere else."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import COCO, write_noise
from PIL import Image

from mbv2det.checks.annotation import (
    check_hidden_files,
    check_objects,
    check_repairs,
    with_sizes,
)
from mbv2det.checks.boxes import are_fractions, box_faults
from mbv2det.checks.classes import check_unknown_classes, same_names
from mbv2det.checks.files import check_files, check_labels, check_leaks
from mbv2det.checks.finding import (
    ALL_CROWD,
    CLASS_COUNTS,
    CORNERS,
    DEEP,
    DUPLICATED,
    EMPTY_CLASS,
    EMPTY_IMAGES,
    FRACTIONS,
    HIDDEN_FILES,
    INVERTED,
    LEAK,
    MASK_SIZE,
    MASK_UNUSABLE,
    NO_OBJECTS,
    OTHER_SIZE,
    OUTSIDE,
    REACHING_OUT,
    REPEATED,
    ROTATED,
    SAME_NAME,
    TRUNCATED,
    UNKNOWN_CLASS,
    UNREADABLE,
    ZERO_SIZE,
    Finding,
    Kind,
    by_kind,
    faults_of,
)
from mbv2det.checks.image_files import (
    look_at_all,
    look_at_headers,
    look_at_image,
    measured_sizes,
)
from mbv2det.data.annotations import Annotations
from mbv2det.data.coco import read_coco
from mbv2det.data.folder import MaskSource, read_masks
from mbv2det.data.objects import Objects
from mbv2det.data.voc import read_voc
from mbv2det.labels import LabelMap

SIZE = (30, 40)  # height, width


def check_annotations(split, name="train"):
    """Finds what can be found without opening an image."""
    return [*check_repairs(split, name), *check_objects(split, name)]


def split_of(boxes, *, labels=None, names=("cat", "dog"), images=None, crowd=None, size=SIZE):
    """Returns a split of images of one size; by default each box has an image of its own."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    image = np.arange(len(boxes)) if images is None else np.array(images)
    labels = np.arange(len(boxes)) % len(names) if labels is None else np.array(labels)
    count = max(1, int(image.max(initial=-1)) + 1)
    return Annotations(
        "split.json",
        image_ids=np.array([str(i) for i in range(count)]),
        files=np.array([f"images/{i}.jpg" for i in range(count)]),
        sizes=np.tile(np.array(size, np.int64), (count, 1)),
        objects=Objects.group_by_image(
            LabelMap(names, tuple(range(len(names)))),
            count,
            image.astype(np.int64),
            boxes=boxes,
            labels=labels.astype(np.int64),
            areas=np.ones(len(boxes)),
            crowd=None if crowd is None else np.array(crowd, np.bool_),
        ),
    )


def kinds(findings):
    return Counter(f.kind for f in findings if f.kind.is_fault)


GOOD = (5, 6, 20, 18)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        (GOOD, None),
        ((0, 0, 40, 30), None),  # the whole image
        ((-1, -1, 40.6, 31), None),  # within a pixel
        ((5, 6, 42, 18), REACHING_OUT),
        ((-3, 6, 10, 18), REACHING_OUT),
        ((41, 6, 50, 18), OUTSIDE),
        ((5, -9, 20, -2), OUTSIDE),
        ((20, 6, 5, 18), INVERTED),
        ((5, 18, 20, 6), INVERTED),
        ((5, 6, 5, 18), ZERO_SIZE),
        ((5, 6, 20, 6), ZERO_SIZE),
        ((0.1, 0.2, 0.5, 0.6), FRACTIONS),
    ],
)
def test_a_box_has_the_fault_that_it_has(box, kind):
    split = split_of([GOOD, box], labels=[0, 1])
    found = faults_of(check_annotations(split))
    assert [f.kind for f in found] == ([] if kind is None else [kind])
    assert [(f.index, f.file) for f in found] == ([] if kind is None else [(1, "images/1.jpg")])


def test_boxes_of_an_image_of_unknown_size_are_compared_with_no_size():
    split = split_of([GOOD, (5, 6, 500, 18), (20, 6, 5, 18)], labels=[0, 1, 1], size=(0, 0))
    assert kinds(check_annotations(split)) == {INVERTED: 1}


def test_a_box_is_a_duplicate_only_in_the_same_image_and_class():
    split = split_of([GOOD] * 4, labels=[0, 0, 1, 0], images=[0, 0, 0, 1])
    (found,) = faults_of(check_annotations(split))
    assert found.kind == DUPLICATED
    assert found.record == "object 2 (cat: 5, 6, 20, 18)"


def test_the_message_names_object_class_corners_and_size():
    (found,) = faults_of(check_annotations(split_of([GOOD, (5, 6, 60, 18)]), "val"))
    assert found.sentence == (
        "object 1 (dog: 5, 6, 60, 18) in an image of 30x40 (height x width); "
        "clip the box to the image"
    )


def test_fractions_are_the_rule_only_if_most_boxes_have_them():
    fraction = (0.2, 0.1, 0.9, 1.0)
    assert are_fractions(split_of([fraction, fraction, GOOD]))
    assert not are_fractions(split_of([fraction, GOOD, GOOD]))
    assert not are_fractions(split_of([]))


def test_boxes_after_vocs_shift_by_a_pixel_are_fractions_too():
    shifted = (-0.9, -0.8, 0.5, 0.6)  # xmin - 1, ymin - 1, xmax, ymax
    found = faults_of(check_annotations(split_of([shifted, GOOD, GOOD]), "train"))
    assert [(f.kind, f.index) for f in found] == [(FRACTIONS, 0)]
    mostly = faults_of(check_annotations(split_of([shifted, shifted, GOOD]), "train"))
    assert [(f.kind, f.index) for f in mostly] == [(FRACTIONS, 0), (FRACTIONS, 1)]


def test_corners_in_place_of_widths_are_one_finding():
    corners = np.array([(5, 6, 20, 18), (20, 10, 38, 28), (30, 2, 39, 29), (8, 20, 35, 30)])
    as_read = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
    assert kinds(check_annotations(split_of(as_read), "train")) == {CORNERS: 1}
    # The same boxes, right; and boxes that reach out for another reason.
    assert not kinds(check_annotations(split_of(corners), "train"))
    shifted = corners + np.array([35, 25, 35, 25])
    assert CORNERS not in kinds(check_annotations(split_of(shifted), "train"))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (("RBC", "rbc"), [["RBC", "rbc"]]),
        (("traffic light", "Traffic_Light", "traffic-light", "dog"), 3),
        ((" cat", "cat"), [[" cat", "cat"]]),
        (("cat", "cats", "c at"), []),
    ],
)
def test_names_that_differ_only_in_spelling_are_grouped(names, groups):
    found = same_names(names)
    assert found == groups if isinstance(groups, list) else len(found[0]) == groups


def test_spellings_of_a_class_are_a_fault():
    split = split_of([GOOD, GOOD], names=("RBC", "rbc"))
    assert kinds(check_annotations(split)) == {SAME_NAME: 1}


def test_nothing_to_learn_misleads():
    crowds = split_of([GOOD, GOOD], crowd=[True, True])
    assert kinds(check_annotations(crowds, "train")) == {ALL_CROWD: 1}
    one_object = split_of([GOOD, GOOD], crowd=[True, False])
    assert not kinds(check_annotations(one_object, "train"))
    assert kinds(check_annotations(split_of([]), "train")) == {NO_OBJECTS: 1}
    assert ALL_CROWD.misleads
    assert NO_OBJECTS.misleads


def test_a_class_without_objects_is_a_fault_of_train_and_a_remark_of_val():
    split = split_of([GOOD], names=("cat", "dog"))
    assert kinds(check_annotations(split)) == {EMPTY_CLASS: 1}
    assert not kinds(check_annotations(split, "val"))


def test_images_without_objects_and_class_counts_are_remarks():
    split = split_of([GOOD, GOOD, GOOD], labels=[0, 1, 1], images=[0, 0, 3])
    found = check_annotations(split)
    assert {f.kind: f.message for f in found} == {
        CLASS_COUNTS: "3 objects in 4 images: dog 2, cat 1",
        EMPTY_IMAGES: "2 of 4 images",
    }
    assert faults_of(found) == []


def test_classes_that_only_val_has_are_found():
    val = split_of([GOOD], names=("cat", "cow"))
    (found,) = check_unknown_classes(
        LabelMap(("cat", "dog"), (0, 1)), val, val.objects.label_map, "val"
    )
    assert (found.kind, found.message) == (UNKNOWN_CLASS, "class 'cow' is not among those of train")


def test_what_a_reader_repairs_is_a_fault_and_what_the_settings_leave_out_is_not(
    make_voc, tmp_path
):
    objects = {"a": make_voc.object("dog") + make_voc.object("cat", (5, 6, 5, 18))}
    objects["b"] = make_voc.object("cat")
    split = read_voc([make_voc(tmp_path, objects)])
    chosen = split.with_label_map(split.objects.label_map.choose(["cat"]))
    found = check_annotations(chosen, "train")
    repairs = [f for f in found if f.kind.name.startswith(("degenerate", "objects of other"))]
    assert [(f.file, f.kind.is_fault) for f in repairs] == [("a.xml", True), ("a.png", False)]


def test_boxes_are_not_reported_a_second_time_as_repairs(make_coco, tmp_path):
    annotation = {"id": 9, "image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 9], "area": 1}
    annotations = [*COCO["annotations"], annotation]
    split = read_coco(*make_coco(tmp_path, annotations=annotations))
    assert kinds(check_annotations(split)) == {ZERO_SIZE: 1}


def test_every_kind_of_box_fault_is_a_row_of_its_own_kind():
    faults = box_faults(split_of([(41, 6, 50, 18), (20, 40, 5, 50), (50, 6, 50, 8)]))
    assert sum(rows.astype(int) for rows in faults.values()).tolist() == [1, 1, 1]


# Files.


@pytest.fixture
def coco_split(make_coco, tmp_path):
    return read_coco(*make_coco(tmp_path))


def found_in(split, look=look_at_image):
    facts = look_at_all(split, look, "")
    return check_files(split, facts, "train")


def test_good_files_have_no_fault(coco_split):
    assert found_in(coco_split) == []
    assert found_in(coco_split, look_at_headers) == []


@pytest.mark.parametrize("look", [look_at_image, look_at_headers])
@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images_are_all_found(coco_split, content, look):
    for index in (1, 3):
        coco_split.path(index).write_bytes(content)
    found = found_in(coco_split, look)
    assert [(f.kind, f.index) for f in found] == [(UNREADABLE, 1), (UNREADABLE, 3)]
    assert str(coco_split.path(1)) not in found[0].message


def test_a_deleted_file_is_found(coco_split):
    coco_split.path(2).unlink()
    (found,) = found_in(coco_split)
    assert found.sentence.startswith("expected an image file, found none; replace or delete")


def test_truncated_images_are_found(coco_split):
    path = coco_split.path(0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="jpeg", quality=95)
    assert found_in(coco_split) == []
    path.write_bytes(path.read_bytes()[:-900])
    assert kinds(found_in(coco_split)) == {TRUNCATED: 1}


@pytest.mark.parametrize("look", [look_at_image, look_at_headers])
def test_sizes_that_contradict_the_annotation_are_found(coco_split, look):
    write_noise(coco_split.path(0), 44, 30)
    write_noise(coco_split.path(1), 48, 32)  # annotated 32x48
    found = found_in(coco_split, look)
    assert [(f.kind, f.index) for f in found] == [(OTHER_SIZE, 0), (OTHER_SIZE, 1)]
    assert found[1].message.endswith("height and width are exchanged")


def save_turned(path, height, width, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="png", exif=exif)


@pytest.mark.parametrize("look", [look_at_image, look_at_headers])
@pytest.mark.parametrize(
    ("height", "width", "orientation", "expected"),
    [(40, 30, 6, {ROTATED: 1}), (30, 40, 6, {}), (40, 30, 3, {}), (44, 30, 6, {OTHER_SIZE: 1})],
)
def test_an_annotation_of_the_pixels_as_stored_is_found(
    coco_split, height, width, orientation, expected, look
):
    save_turned(coco_split.path(0), height, width, orientation)  # annotated 40x30
    assert kinds(found_in(coco_split, look)) == expected


def test_an_annotated_size_is_the_frame_of_its_boxes(coco_split):
    save_turned(coco_split.path(0), 40, 30)
    write_noise(coco_split.path(1), 64, 96)  # annotated 32x48
    coco_split.path(2).write_bytes(b"")
    without = with_sizes(coco_split, [(40, 30), (32, 48), (24, 24), (0, 0), (50, 36)])
    facts = look_at_all(without, look_at_image, "")
    sizes = [(40, 30), (64, 96), (24, 24), (30, 40), (50, 36)]
    assert list(measured_sizes(without, facts)) == sizes


@pytest.mark.parametrize("look", [look_at_image, look_at_headers])
def test_images_of_more_than_8_bits_are_found(coco_split, look):
    deep = np.linspace(0, 60000, 40 * 30).reshape(40, 30).astype(np.uint16)
    Image.fromarray(deep).save(coco_split.path(0), format="png")
    Image.fromarray((deep[:24, :24] >> 8).astype(np.uint8)).save(coco_split.path(2))
    assert kinds(found_in(coco_split, look)) == {DEEP: 1}


def test_the_same_pixels_in_other_files_are_found(make_coco, tmp_path):
    train = read_coco(*make_coco(tmp_path / "train"))
    # The writer of noise takes the pixels from the name.
    images = [{"id": 1, "file_name": "z.png", "height": 20, "width": 20}]
    images += [{"id": 2, "file_name": "a.png", "height": 40, "width": 30}]
    make_coco(tmp_path / "val", images=images, annotations=[])
    write_noise(tmp_path / "val/images/z.png", 20, 20)
    with Image.open(tmp_path / "val/images/a.png") as image:
        image.save(tmp_path / "val/images/a.png", compress_level=0)
    val = read_coco(tmp_path / "val/instances.json", tmp_path / "val/images")
    splits = {"train": train, "val": val}
    facts = {name: look_at_all(split, look_at_image, "") for name, split in splits.items()}
    (found,) = check_leaks(splits, facts)
    assert (found.kind, found.split, Path(found.file).name) == (LEAK, "val", "a.png")
    assert str(train.path(0)) in found.message


def test_the_same_image_twice_in_a_split_is_a_remark(coco_split):
    coco_split.path(0).write_bytes(coco_split.path(1).read_bytes())
    facts = look_at_all(coco_split, look_at_image, "")
    (found,) = check_leaks({"train": coco_split}, {"train": facts})
    assert found.kind == REPEATED
    assert not found.kind.is_fault


# Masks.


@pytest.fixture
def mask_split(tmp_path):
    (tmp_path / "masks").mkdir()
    for stem in "abc":
        write_noise(tmp_path / f"images/{stem}.png", *SIZE)
        save_mask(tmp_path / f"masks/{stem}.png", np.zeros(SIZE, np.uint8))
    source = MaskSource(tmp_path / "images", (tmp_path / "masks",), None)
    return read_masks([source], LabelMap.of_masks(("background", "cell")), 255)


def save_mask(path, values):
    Image.fromarray(values).save(path)


def test_masks_of_the_wrong_size_and_with_unknown_values_are_found(mask_split):
    assert found_in(mask_split) == []
    save_mask(mask_split.mask_source(0), np.zeros((29, 40), np.uint8))
    save_mask(mask_split.mask_source(1), np.full(SIZE, 7, np.uint8))
    Path(mask_split.mask_source(2)).write_bytes(b"")
    found = found_in(mask_split)
    assert [(f.kind, f.index) for f in found] == [
        (MASK_SIZE, 0),
        (MASK_UNUSABLE, 1),
        (MASK_UNUSABLE, 2),
    ]
    assert [Path(f.file).parent.name for f in found] == ["masks"] * 3
    assert found[0].message == (
        "the mask has 29x40 (height x width), its image 30x40 (height x width)"
    )


def test_headers_show_masks_of_the_wrong_size(mask_split):
    save_mask(mask_split.mask_source(2), np.zeros((30, 41), np.uint8))
    assert kinds(found_in(mask_split, look_at_headers)) == {MASK_SIZE: 1}


def test_labels_that_no_pixel_has_are_found(mask_split):
    def labels_without_pixels():
        facts = look_at_all(mask_split, look_at_image, "")
        return [f.message for f in check_labels(mask_split, facts, "train")]

    assert labels_without_pixels() == ["no pixel of label 'cell'"]
    save_mask(mask_split.mask_source(1), np.ones(SIZE, np.uint8))
    assert labels_without_pixels() == []


# The rest.


def test_hidden_images_and_annotations_are_found(tmp_path):
    for name in ("._a.jpg", "a.jpg", ".ipynb_checkpoints/b.png", ".git/config", ".DS_Store"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = list(check_hidden_files(tmp_path))
    assert {f.kind for f in found} == {HIDDEN_FILES}
    assert [Path(f.file).name for f in found] == [".ipynb_checkpoints", "._a.jpg"]


def test_many_images_are_looked_at_by_several_processes(make_coco, tmp_path):
    images = [{"id": i, "file_name": f"{i:03d}.png", "height": 8, "width": 8} for i in range(120)]
    (tmp_path / "images").mkdir()
    for image in images:
        write_noise(tmp_path / "images" / image["file_name"], 8, 8)
    (tmp_path / "images/007.png").write_bytes(b"")
    split = read_coco(*make_coco(tmp_path, images=images, annotations=[]))
    facts = look_at_all(split, look_at_image, "")
    assert [fact.index for fact in facts] == list(range(120))
    assert [f.index for f in check_files(split, facts, "train")] == [7]


def test_faults_come_before_remarks():
    remark, fault = Kind("remark", "", is_fault=False), Kind("fault", "mend it")
    findings = [Finding(kind, "train", "") for kind in (remark, fault, remark)]
    assert [(kind.name, len(group)) for (kind, _), group in by_kind(findings).items()] == [
        ("fault", 1),
        ("remark", 2),
    ]


def test_a_finding_is_json():
    finding = Finding(OUTSIDE, "val", "object 1", "a.jpg", "object 1", 3)
    document = json.loads(json.dumps(finding.document()))
    assert (document["kind"], document["fault"], document["file"]) == (OUTSIDE.name, True, "a.jpg")


def test_sizes_are_replaced_by_measured_ones():
    split = with_sizes(split_of([GOOD]), [(7, 9)])
    assert replace(split).size(0) == (7, 9)
