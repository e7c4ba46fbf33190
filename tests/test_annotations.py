import dataclasses

import numpy as np
import pytest
from conftest import COCO

from mbv2det.data.annotations import Annotations, Objects, Report
from mbv2det.data.coco import read_coco
from mbv2det.data.masks import IndexMasks, InstanceMasks
from mbv2det.errors import DataError
from mbv2det.labels import LabelMap
from mbv2det.metrics.ground_truth import GroundTruth


def annotations_of(boxes, starts=(0, 2, 2, 4), size=(30, 40)):
    """Three images; objects are cats and dogs in turn, every third is a crowd."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    count, images = len(boxes), len(starts) - 1
    objects = Objects(
        labels=LabelMap(("cat", "dog"), (17, 18)),
        annotated=np.ones(images, bool),
        starts=np.array(starts, np.int64),
        boxes=boxes,
        classes=np.arange(count) % 2,
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


def test_instances_are_clipped_and_the_empty_left_out(annotations):
    first, last = annotations.instances(0, (30, 40)), annotations.instances(2, (30, 40))
    np.testing.assert_array_equal(first.boxes, [[1, 2, 11, 12], [0, 20, 20, 30]])
    assert first.labels.tolist() == [0, 1]
    assert len(last) == 0


def test_instances_leave_the_annotation_untouched(annotations):
    annotations.instances(0, (30, 40))
    np.testing.assert_array_equal(annotations.objects.boxes, BOXES)


def test_crowds_and_difficult_objects_are_ignored(annotations):
    assert annotations.instances(0, (30, 40)).ignore.tolist() == [True, True]
    assert annotations.instances(2, (30, 90)).ignore.tolist() == [True]


def test_ground_truth_has_every_box_as_the_file_has_it(annotations):
    truth = GroundTruth.of(annotations)
    np.testing.assert_array_equal(truth.boxes, BOXES)
    assert truth.image.tolist() == [0, 0, 2, 2]
    assert truth.labels.tolist() == [0, 1, 0, 1]
    assert truth.areas.tolist() == [100, 101, 102, 103]
    assert truth.crowd.tolist() == [True, False, False, True]
    assert truth.difficult.tolist() == [False, True, False, False]
    assert (truth.num_images, truth.class_names) == (3, ("cat", "dog"))


def test_same_labels_change_nothing(annotations):
    assert annotations.with_labels(LabelMap(("cat", "dog"), (17, 18))) is annotations


def test_classes_are_matched_by_name_in_another_order(annotations):
    found = annotations.with_labels(LabelMap(("cow", "dog", "cat"), (1, 2, 3)))
    assert found.objects.classes.tolist() == [2, 1, 2, 1]
    assert found.objects.labels.ids == (1, 2, 3)
    np.testing.assert_array_equal(found.objects.boxes, BOXES)
    assert found.report.lines() == []


def test_objects_of_other_classes_are_left_out_and_reported(annotations):
    found = annotations.with_labels(LabelMap(("dog",), (1,)))
    assert found.objects.starts.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(found.objects.boxes, [BOXES[1], BOXES[3]])
    assert found.objects.classes.tolist() == [0, 0]
    assert found.objects.areas.tolist() == [101, 103]
    assert found.objects.crowd.tolist() == [False, True]
    assert found.objects.difficult.tolist() == [True, False]
    assert found.report.lines() == ["2 objects of other classes left out (cat): 0.png, 2.png"]


def test_images_left_without_objects_stay(annotations):
    found = annotations_of(BOXES[:1], starts=(0, 1)).with_labels(LabelMap(("dog",), (1,)))
    assert (len(found), len(found.objects)) == (1, 0)


def test_choosing_classes_leaves_the_first_report_alone(annotations):
    annotations.with_labels(LabelMap(("dog",), (1,)))
    assert annotations.report.lines() == []


def test_no_class_in_common_is_an_error(annotations):
    with pytest.raises(DataError, match=r"split: none of its classes \(cat, dog.*\(cow"):
        annotations.with_labels(LabelMap(("cow",), (1,)))


def test_report_names_a_few_files_and_counts_the_rest():
    report = Report()
    for file in "abcab":
        report.add("odd boxes", file)
    report.add("dark images", "z")
    assert report.lines(shown=2) == ["5 odd boxes: a, b and 1 more", "1 dark images: z"]
    assert report.lines() == ["5 odd boxes: a, b, c", "1 dark images: z"]


def test_each_bad_box_is_reported_once(annotations):
    annotations.report_boxes()
    lines = "\n".join(annotations.report.lines())
    assert "1 degenerate boxes (zero or negative width or height) not trained on: 2.png" in lines
    assert "1 boxes wholly outside the image not trained on: 2.png" in lines
    assert "1 boxes reaching out of the image by more than a pixel clipped: 0.png" in lines
    assert len(annotations.report.lines()) == 3


def test_boxes_are_not_beyond_an_image_of_unknown_size():
    annotations = annotations_of(BOXES, size=(0, 0))
    annotations.report_boxes()
    (line,) = annotations.report.lines()
    assert line.startswith("1 degenerate")


def columns(found):
    """Fields of the annotation, and of its objects and masks."""
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, Objects | IndexMasks | InstanceMasks):
            yield from columns(value)
        else:
            yield field.name, value


def test_annotation_is_held_in_flat_arrays_alone(tmp_path, make_coco):
    # Python objects, one a box, would be copied into every worker as they are touched.
    outlined = [box | {"segmentation": [[1, 1, 9, 1, 9, 9]]} for box in COCO["annotations"]]
    found = read_coco(*make_coco(tmp_path, annotations=outlined), masks=True)
    names = set()
    for name, value in columns(found):
        names.add(name)
        if isinstance(value, np.ndarray):
            assert value.dtype != object, name
        elif isinstance(value, tuple):
            assert len(value) == len(found.objects.labels), name
        else:
            assert isinstance(value, str | LabelMap | Report), name
    assert {"files", "boxes", "codes"} <= names
    assert not found.report.where
