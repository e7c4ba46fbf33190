import dataclasses

import numpy as np
import pytest
from conftest import COCO

from mbv2det.data.annotations import Annotations, evenly_spaced
from mbv2det.data.coco import read_coco
from mbv2det.data.fault_counts import FaultCounts
from mbv2det.data.index_masks import IndexMasks
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.objects import Objects
from mbv2det.data.outlines import Outlines
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap


def annotations_of(boxes, starts=(0, 2, 2, 4), size=(30, 40)):
    """Returns three images; objects are cats and dogs in turn, every third is a crowd."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    count, images = len(boxes), len(starts) - 1
    objects = Objects(
        label_map=LabelMap(("cat", "dog"), (17, 18)),
        annotated=np.ones(images, bool),
        starts=np.array(starts, np.int64),
        boxes=boxes,
        labels=np.arange(count) % 2,
        areas=np.arange(count, dtype=np.float64) + 100,
        crowd=np.arange(count) % 3 == 0,
        difficult=np.arange(count) == 1,
    )
    return Annotations(
        name="split",
        image_ids=np.array([f"id {i}" for i in range(images)]),
        files=np.array([f"folder/{i}.png" for i in range(images)]),
        sizes=np.array([size] * images, np.int64).reshape(-1, 2),
        objects=objects,
    )


BOXES = [[1, 2, 11, 12], [-5, 20, 20, 50], [3, 3, 3, 9], [50, 3, 60, 9]]


@pytest.fixture
def annotations():
    return annotations_of(BOXES)


def test_split_without_images_is_refused():
    with pytest.raises(DataError, match="split: expected at least one image"):
        annotations_of([], starts=(0,))


def test_image_of_an_object_skips_images_without_any(annotations):
    assert annotations.objects.image.tolist() == [0, 0, 2, 2]


def test_instances_are_clipped_and_empty_ones_left_out(annotations):
    first, last = annotations.instances(0, (30, 40)), annotations.instances(2, (30, 40))
    np.testing.assert_array_equal(first.boxes, [[1, 2, 11, 12], [0, 20, 20, 30]])
    assert first.labels.tolist() == [0, 1]
    assert len(last) == 0


def test_instances_do_not_change_the_annotation(annotations):
    annotations.instances(0, (30, 40))
    np.testing.assert_array_equal(annotations.objects.boxes, BOXES)


def test_crowds_and_difficult_objects_are_ignored(annotations):
    assert annotations.instances(0, (30, 40)).ignore.tolist() == [True, True]
    assert annotations.instances(2, (30, 90)).ignore.tolist() == [True]


def test_objects_have_the_boxes_of_the_file(annotations):
    truth = annotations.objects
    np.testing.assert_array_equal(truth.boxes, BOXES)
    assert truth.image.tolist() == [0, 0, 2, 2]
    assert truth.labels.tolist() == [0, 1, 0, 1]
    assert truth.areas.tolist() == [100, 101, 102, 103]
    assert truth.crowd.tolist() == [True, False, False, True]
    assert truth.difficult.tolist() == [False, True, False, False]
    assert truth.ignore.tolist() == [True, True, False, True]
    assert (truth.num_images, truth.label_map.names) == (3, ("cat", "dog"))


def test_objects_of_some_images_keep_their_image_indices(annotations):
    some = annotations.objects.of_images(np.array([2, 1]))
    assert (some.num_images, some.image.tolist()) == (3, [2, 2])
    np.testing.assert_array_equal(some.boxes, BOXES[2:])
    assert some.labels.tolist() == [0, 1]
    assert some.areas.tolist() == [102, 103]
    assert some.crowd.tolist() == [False, True]
    assert some.difficult.tolist() == [False, False]
    assert some.label_map == annotations.objects.label_map


def test_objects_are_grouped_by_image_in_their_order():
    objects = Objects.group_by_image(
        LabelMap(("cat", "dog"), (1, 2)),
        num_images=4,
        image=np.array([2, 0, 2, 0]),
        boxes=np.array(BOXES, np.float64),
        labels=np.array([0, 1, 1, 0]),
        areas=np.array([1.0, 2.0, 3.0, 4.0]),
        crowd=np.array([True, False, False, False]),
    )
    assert objects.starts.tolist() == [0, 2, 2, 4, 4]
    assert objects.image.tolist() == [0, 0, 2, 2]
    np.testing.assert_array_equal(objects.boxes, [BOXES[1], BOXES[3], BOXES[0], BOXES[2]])
    assert objects.labels.tolist() == [1, 0, 0, 1]
    assert objects.areas.tolist() == [2, 4, 1, 3]
    assert objects.crowd.tolist() == [False, False, True, False]
    assert objects.annotated.all()
    assert not objects.difficult.any()


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(5, 3, [0, 2, 4]), (3, 5, [0, 1, 2]), (7, 1, [0]), (0, 4, [])]
)
def test_evenly_spaced_positions_are_limited_and_distinct(count, most, expected):
    assert evenly_spaced(count, most) == expected


def test_same_labels_change_nothing(annotations):
    assert annotations.with_label_map(LabelMap(("cat", "dog"), (17, 18))) is annotations


def test_classes_are_matched_by_name_in_another_order(annotations):
    annotations = annotations.with_label_map(LabelMap(("cow", "dog", "cat"), (1, 2, 3)))
    assert annotations.objects.labels.tolist() == [2, 1, 2, 1]
    assert annotations.objects.label_map.ids == (1, 2, 3)
    np.testing.assert_array_equal(annotations.objects.boxes, BOXES)
    assert annotations.faults.lines() == []


def test_objects_of_other_classes_are_left_out_and_counted(annotations):
    annotations = annotations.with_label_map(LabelMap(("dog",), (1,)))
    assert annotations.objects.starts.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(annotations.objects.boxes, [BOXES[1], BOXES[3]])
    assert annotations.objects.labels.tolist() == [0, 0]
    assert annotations.objects.areas.tolist() == [101, 103]
    assert annotations.objects.crowd.tolist() == [False, True]
    assert annotations.objects.difficult.tolist() == [True, False]
    assert annotations.faults.lines() == ["2 objects of other classes left out (cat): 0.png, 2.png"]


def test_images_without_remaining_objects_are_kept(annotations):
    annotations = annotations_of(BOXES[:1], starts=(0, 1)).with_label_map(LabelMap(("dog",), (1,)))
    assert (len(annotations), len(annotations.objects)) == (1, 0)


def test_choosing_classes_leaves_the_faults_of_the_original_unchanged(annotations):
    annotations.with_label_map(LabelMap(("dog",), (1,)))
    assert annotations.faults.lines() == []


def test_no_class_in_common_is_an_error(annotations):
    with pytest.raises(
        DataError, match=r"split: expected objects of .* classes cow.*got only cat, dog"
    ):
        annotations.with_label_map(LabelMap(("cow",), (1,)))


def test_fault_counts_name_a_few_files_and_count_the_rest():
    faults = FaultCounts()
    for file in "abcab":
        faults.add("odd boxes", file)
    faults.add("dark images", "z")
    assert faults.lines(shown=2) == ["5 odd boxes: a, b and 1 more", "1 dark images: z"]
    assert faults.lines() == ["5 odd boxes: a, b, c", "1 dark images: z"]


def test_each_bad_box_is_counted_once(annotations):
    annotations.count_bad_boxes()
    lines = "\n".join(annotations.faults.lines())
    assert "1 degenerate boxes (zero or negative width or height) not trained on: 2.png" in lines
    assert "1 boxes wholly outside the image not trained on: 2.png" in lines
    assert "1 boxes reaching out of the image by more than a pixel clipped: 0.png" in lines
    assert len(annotations.faults.lines()) == 3


def test_boxes_are_not_checked_against_an_image_of_unknown_size():
    annotations = annotations_of(BOXES, size=(0, 0))
    annotations.count_bad_boxes()
    (line,) = annotations.faults.lines()
    assert line.startswith("1 degenerate")


def columns(holder):
    """Names and values of the fields of an annotation, and of its objects and masks."""
    for field in dataclasses.fields(holder):
        value = getattr(holder, field.name)
        if isinstance(value, Objects | IndexMasks | InstanceMasks | Outlines):
            yield from columns(value)
        else:
            yield field.name, value


def test_annotation_contains_only_flat_arrays(tmp_path, make_coco):
    # One Python object a box would be copied into every worker as its reference count changes.
    outlined = [box | {"segmentation": [[1, 1, 9, 1, 9, 9]]} for box in COCO["annotations"]]
    annotations = read_coco(*make_coco(tmp_path, annotations=outlined), masks=True)
    names = set()
    for name, value in columns(annotations):
        names.add(name)
        if isinstance(value, np.ndarray):
            assert value.dtype != object, name
        elif isinstance(value, tuple):
            assert len(value) == len(annotations.objects.label_map), name
        else:
            assert isinstance(value, str | LabelMap | FaultCounts | None), name
    assert {"files", "boxes", "codes"} <= names
    assert not annotations.faults.files
