import re

import numpy as np
import pytest

from mbv2det.data.coco import read_coco
from mbv2det.errors import DataError


def annotation(**changes):
    return {"id": 77, "image_id": 40, "category_id": 3, "bbox": [1, 2, 3, 4]} | changes


def files_of(annotations):
    return [annotations.path(i).name for i in range(len(annotations))]


def test_category_ids_may_have_gaps_and_are_sorted(tmp_path, make_coco):
    labels = read_coco(*make_coco(tmp_path)).labels
    assert labels.ids == (3, 18, 90)
    assert labels.names == ("car", "dog", "toothbrush")


def test_category_ids_may_start_at_zero(tmp_path, make_coco):
    categories = [{"id": 0, "name": "car"}, {"id": 10**12, "name": "dog"}]
    objects = [annotation(category_id=0), annotation(category_id=10**12)]
    found = read_coco(*make_coco(tmp_path, categories=categories, annotations=objects))
    assert found.labels.ids == (0, 10**12)
    assert found.classes.tolist() == [0, 1]


def test_images_come_sorted_by_id(tmp_path, make_coco):
    found = read_coco(*make_coco(tmp_path))
    assert found.image_ids.tolist() == ["7", "12", "31", "40", "52"]
    assert files_of(found) == ["a.png", "b.png", "c.png", "d.png", "e.png"]


def test_sizes_are_height_then_width(tmp_path, make_coco):
    assert read_coco(*make_coco(tmp_path)).size(1) == (32, 48)


def test_unknown_sizes_are_none(tmp_path, make_coco):
    images = [{"id": 40, "file_name": "d.png"}]
    objects = [annotation()]
    assert read_coco(*make_coco(tmp_path, images=images, annotations=objects)).size(0) is None


def test_images_without_objects_are_kept(tmp_path, make_coco):
    found = read_coco(*make_coco(tmp_path))
    assert np.diff(found.starts).tolist() == [1, 1, 0, 2, 1]
    assert len(found.instances(2, (24, 24))) == 0
    assert "1 images without any" in found.summary()


def test_split_without_any_object_is_read(tmp_path, make_coco):
    found = read_coco(*make_coco(tmp_path, annotations=[]))
    assert (len(found), len(found.boxes)) == (5, 0)


def test_objects_lie_with_their_image_and_class(tmp_path, make_coco):
    # Image 40 is the fourth; x_max = 4 + 20, y_max = 5 + 10, and 10 + 6, 8 + 6.
    objects = read_coco(*make_coco(tmp_path)).instances(3, (30, 40))
    np.testing.assert_array_equal(objects.boxes, [[4, 5, 24, 15], [10, 8, 16, 14]])
    assert objects.labels.tolist() == [2, 0]
    assert objects.boxes.dtype == np.float32


def test_areas_are_the_files_and_the_boxes_where_it_has_none(tmp_path, make_coco):
    # In the order of the images; the third annotation has no area: 48 * 32.
    assert read_coco(*make_coco(tmp_path)).areas.tolist() == [200, 1536, 150, 36, 500]


def test_crowds_are_flagged_and_ignored(tmp_path, make_coco):
    found = read_coco(*make_coco(tmp_path))
    assert found.crowd.tolist() == [False, True, False, False, False]
    assert not found.difficult.any()
    assert found.instances(1, (32, 48)).ignore.tolist() == [True]
    assert found.instances(0, (40, 30)).ignore.tolist() == [False]


@pytest.mark.parametrize(
    ("bbox", "kept", "reported"),
    [
        ([5, 5, 0, 9], [], "1 degenerate boxes"),
        ([15, 5, -9, 9], [], "1 degenerate boxes"),
        ([50, 5, 9, 9], [], "1 boxes wholly outside"),
        ([40, 5, 9, 9], [], "1 boxes wholly outside"),
        ([-9, 5, 20, 9], [[0, 5, 11, 14]], "1 boxes reaching out"),
        ([30, 20, 20, 20], [[30, 20, 40, 30]], "1 boxes reaching out"),
    ],
)
def test_bad_box_is_reported_and_kept_for_the_metrics_alone(
    tmp_path, make_coco, bbox, kept, reported
):
    found = read_coco(*make_coco(tmp_path, annotations=[annotation(bbox=bbox)]))
    (line,) = found.report.lines()
    assert line.startswith(reported)
    assert line.endswith(": d.png")
    x, y, width, height = bbox
    np.testing.assert_array_equal(found.boxes, [[x, y, x + width, y + height]])
    np.testing.assert_array_equal(
        found.instances(3, (30, 40)).boxes, np.array(kept, np.float32).reshape(-1, 4)
    )


def test_good_boxes_are_not_reported(tmp_path, make_coco):
    # Up to the image's edge, and beyond it by less than the rounding of a pixel.
    objects = [annotation(bbox=[0, 0, 40, 30]), annotation(bbox=[-0.5, 0, 41, 30.9])]
    assert read_coco(*make_coco(tmp_path, annotations=objects)).report.lines() == []


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_key_is_named(tmp_path, make_coco, key):
    with pytest.raises(DataError, match=rf"instances\.json: .*no list called '{key}'"):
        read_coco(*make_coco(tmp_path, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [annotation(image_id=8)]}, "annotation 77 has image_id 8"),
        ({"annotations": [annotation(category_id=4)]}, "annotation 77 has category_id 4"),
        ({"annotations": [annotation(category_id=[3])]}, r"annotation 77 has category_id \[3\]"),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, r"annotation 77: .*got \[1, 2, 3\]"),
        ({"annotations": [annotation(bbox=None)]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, None])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, "4"])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, np.nan])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(area=None)]}, "annotation 77: expected .*area"),
        ({"images": [{"id": 1}]}, "expected id and file_name"),
        ({"images": [], "annotations": []}, "at least one image"),
        ({"categories": [{"id": 3}]}, "expected id and name of every category"),
        ({"categories": [{"name": "car"}]}, "expected id and name of every category"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "the id 3 twice"),
        ({"categories": []}, "at least one class"),
    ],
)
def test_bad_record_is_one_error_naming_file_and_record(tmp_path, make_coco, changes, message):
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}") as caught:
        read_coco(*make_coco(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_duplicate_image_id_is_an_error(tmp_path, make_coco):
    images = [{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": "b.png"}]
    with pytest.raises(DataError, match=r"instances\.json: expected unique image ids, got 5 2"):
        read_coco(*make_coco(tmp_path, images=images))


def test_broken_json_is_an_error(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=r"instances\.json: expected JSON"):
        read_coco(path, images)


def test_json_of_another_kind_is_an_error(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match=r"instances\.json: expected COCO's keys"):
        read_coco(path, images)


def test_missing_annotation_file_is_an_error(tmp_path, make_coco):
    _, images = make_coco(tmp_path)
    with pytest.raises(DataError, match=r"other\.json: expected a COCO annotation file"):
        read_coco(tmp_path / "other.json", images)


def test_missing_images_are_counted_and_the_first_named(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    (images / "a.png").unlink()
    (images / "b.png").unlink()
    with pytest.raises(DataError, match=r"2 of the 5 images .*instances\.json.* missing, a\.png"):
        read_coco(path, images)


def test_missing_image_folder_hints_at_the_nearest(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    expected = rf"expected a folder.*did you mean {re.escape(str(images))}\?"
    with pytest.raises(DataError, match=expected):
        read_coco(path, tmp_path / "image")


def test_images_may_lie_in_folders_below(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    (images / "deep").mkdir()
    (images / "d.png").rename(images / "deep/d.png")
    records = [{"id": 40, "file_name": "deep/d.png"}]
    path, _ = make_coco(tmp_path, images=records, annotations=[annotation()])
    assert read_coco(path, images).path(0) == images / "deep/d.png"


@pytest.fixture(scope="module")
def real_train(real_data):
    root = real_data("coco")
    return read_coco(root / "annotations/instances_train2017.json", root / "train2017")


def test_real_split_has_its_counts(real_train):
    assert (len(real_train), len(real_train.boxes), real_train.crowd.sum()) == (178, 1409, 15)
    assert real_train.report.lines() == []


def test_real_split_has_80_classes_with_gaps(real_train):
    assert len(real_train.labels) == 80
    assert set(range(1, 91)) - set(real_train.labels.ids) == {
        12,
        26,
        29,
        30,
        45,
        66,
        68,
        69,
        71,
        83,
    }
