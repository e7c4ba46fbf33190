import re

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image
from pycocotools.coco import COCO

from mbv2det.data.coco import read_coco
from mbv2det.data.dataset import read_sample
from mbv2det.data.scenes import ShapesSpec, render_scene
from mbv2det.data.shapes import make_shapes
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap
from mbv2det.structures import SampleKey


def annotation(**changes):
    return {"id": 77, "image_id": 40, "category_id": 3, "bbox": [1, 2, 3, 4]} | changes


def files_of(annotations):
    return [annotations.path(i).name for i in range(len(annotations))]


def test_category_ids_may_have_gaps_and_are_sorted(tmp_path, make_coco):
    label_map = read_coco(*make_coco(tmp_path)).objects.label_map
    assert label_map.ids == (3, 18, 90)
    assert label_map.names == ("car", "dog", "toothbrush")


def test_category_ids_may_start_at_zero(tmp_path, make_coco):
    categories = [{"id": 0, "name": "car"}, {"id": 10**12, "name": "dog"}]
    objects = [annotation(category_id=0), annotation(category_id=10**12)]
    annotations = read_coco(*make_coco(tmp_path, categories=categories, annotations=objects))
    assert annotations.objects.label_map.ids == (0, 10**12)
    assert annotations.objects.labels.tolist() == [0, 1]


def test_images_come_sorted_by_id(tmp_path, make_coco):
    annotations = read_coco(*make_coco(tmp_path))
    assert annotations.image_ids.tolist() == ["7", "12", "31", "40", "52"]
    assert files_of(annotations) == ["a.png", "b.png", "c.png", "d.png", "e.png"]


def test_sizes_are_height_then_width(tmp_path, make_coco):
    assert read_coco(*make_coco(tmp_path)).size(1) == (32, 48)


@pytest.mark.parametrize("side", [None, -1, 0, "-1", -1.0, "absent"])
def test_unknown_sizes_are_read_from_the_images_and_counted(tmp_path, make_coco, side):
    sides = {} if side == "absent" else {"height": side, "width": side}
    images = [{"id": 40, "file_name": "d.png"} | sides, {"id": 7, "file_name": "a.png"} | sides]
    objects = [annotation(segmentation=[TRIANGLE])]
    for masks in (False, True):
        path = make_coco(tmp_path, images=images, annotations=objects)
        annotations = read_coco(*path, masks=masks)
        assert annotations.sizes.tolist() == [[40, 30], [30, 40]]
        (line,) = [x for x in annotations.faults.lines() if "width and height" in x]
        assert line.startswith("2 images without annotated width and height")
        assert line.endswith(": a.png, d.png")
    assert annotations.mask(1).shape == (30, 40)


def test_unknown_size_of_a_turned_image_is_that_of_the_upright_one(tmp_path, make_coco):
    path = make_coco(
        tmp_path, images=[{"id": 40, "file_name": "f.jpg"}], annotations=[annotation()]
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(path[1] / "f.jpg", exif=exif)
    annotations = read_coco(*path)
    assert annotations.size(0) == (40, 30)
    assert read_sample(annotations, SampleKey(0, 0)).image.shape == (40, 30, 3)


def test_images_without_objects_are_kept(tmp_path, make_coco):
    annotations = read_coco(*make_coco(tmp_path))
    assert np.diff(annotations.objects.starts).tolist() == [1, 1, 0, 2, 1]
    assert len(annotations.instances(2, (24, 24))) == 0
    assert "1 images without any" in annotations.summary()


def test_split_without_any_object_is_read(tmp_path, make_coco):
    annotations = read_coco(*make_coco(tmp_path, annotations=[]))
    assert (len(annotations), len(annotations.objects)) == (5, 0)


def test_objects_keep_their_image_and_class(tmp_path, make_coco):
    # Image 40 is the fourth; x_max = 4 + 20, y_max = 5 + 10, and 10 + 6, 8 + 6.
    objects = read_coco(*make_coco(tmp_path)).instances(3, (30, 40))
    np.testing.assert_array_equal(objects.boxes, [[4, 5, 24, 15], [10, 8, 16, 14]])
    assert objects.labels.tolist() == [2, 0]
    assert objects.boxes.dtype == np.float32


def test_areas_come_from_the_file_or_else_from_the_boxes(tmp_path, make_coco):
    # In the order of the images; the third annotation has no area: 48 * 32.
    assert read_coco(*make_coco(tmp_path)).objects.areas.tolist() == [200, 1536, 150, 36, 500]


def test_crowds_are_flagged_and_ignored(tmp_path, make_coco):
    annotations = read_coco(*make_coco(tmp_path))
    assert annotations.objects.crowd.tolist() == [False, True, False, False, False]
    assert not annotations.objects.difficult.any()
    assert annotations.instances(1, (32, 48)).ignore.tolist() == [True]
    assert annotations.instances(0, (40, 30)).ignore.tolist() == [False]


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
def test_bad_box_is_counted_and_kept_only_for_metrics(tmp_path, make_coco, bbox, kept, reported):
    annotations = read_coco(*make_coco(tmp_path, annotations=[annotation(bbox=bbox)]))
    (line,) = annotations.faults.lines()
    assert line.startswith(reported)
    assert line.endswith(": d.png")
    x, y, width, height = bbox
    np.testing.assert_array_equal(annotations.objects.boxes, [[x, y, x + width, y + height]])
    np.testing.assert_array_equal(
        annotations.instances(3, (30, 40)).boxes, np.array(kept, np.float32).reshape(-1, 4)
    )


def test_good_boxes_are_not_counted(tmp_path, make_coco):
    # Up to the image's edge, and beyond it by less than the rounding of a pixel.
    objects = [annotation(bbox=[0, 0, 40, 30]), annotation(bbox=[-0.5, 0, 41, 30.9])]
    assert read_coco(*make_coco(tmp_path, annotations=objects)).faults.lines() == []


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_key_is_named(tmp_path, make_coco, key):
    with pytest.raises(DataError, match=rf"instances\.json: .*no list called '{key}'"):
        read_coco(*make_coco(tmp_path, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [annotation(image_id=8)]}, "annotation 77: expected image_id .* number 8"),
        (
            {"annotations": [annotation(category_id=4)]},
            "annotation 77: expected category_id .* number 4",
        ),
        (
            {"annotations": [annotation(category_id="cat")]},
            "annotation 77: expected category_id .*3 ids of categories, got the text 'cat'",
        ),
        ({"annotations": [annotation(category_id=True)]}, "category_id .* got the flag True"),
        ({"annotations": [annotation(image_id=None)]}, "image_id .* got null"),
        ({"annotations": [annotation(image_id=40.5)]}, "image_id .* got the number 40.5"),
        (
            {"annotations": [annotation(category_id=[3])]},
            r"annotations\[0\]\.category_id: expected true or false or number or text or null, "
            "got array",
        ),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, r"annotation 77: .*got \[1, 2, 3\]"),
        ({"annotations": [annotation(bbox=None)]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, None])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, "4"])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, True])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[1, 2, 3, np.nan])]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(bbox=[0, 0, 1e200, 1e200])]}, "77: .* in pixels, got"),
        ({"annotations": [annotation(bbox={})]}, "annotation 77: expected bbox"),
        ({"annotations": [annotation(area="big")]}, "77: expected a number as area, got the text"),
        ({"annotations": [annotation(area=True)]}, "77: expected a number as area, got the flag"),
        (
            {"annotations": [annotation(iscrowd="no")]},
            "77: expected 0 or 1 as iscrowd, got the",
        ),
        ({"annotations": [annotation(iscrowd=2)]}, "77: expected 0 or 1 as iscrowd, got the num"),
        ({"annotations": [annotation(iscrowd=[1])]}, r"annotations\[0\]\.iscrowd: .*got array"),
        ({"annotations": [7]}, r"annotations\[0\]: expected object, got number"),
        ({"annotations": [{"image_id": 7}]}, r"annotations\[0\]: expected the key 'category_id'"),
        ({"images": [{"id": 1}]}, r"images\[0\]: expected the key 'file_name', found none"),
        ({"images": [{"id": 1, "file_name": 1}]}, r"images\[0\]\.file_name: expected text, got n"),
        (
            {"images": [{"id": 1, "file_name": "a.png"}, {"id": "x", "file_name": "b.png"}]},
            "images: expected ids that are whole numbers, or all of them text, got the text 'x'",
        ),
        (
            {"images": [{"id": 1, "file_name": "a.png", "width": "wide"}], "annotations": []},
            "a.png: expected height and width in pixels, got the text 'wide'",
        ),
        (
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 10**9, "height": 10**9}],
                "annotations": [],
            },
            "a.png: expected at most 178 million pixels",
        ),
        ({"images": [], "annotations": []}, "at least one image"),
        ({"categories": [{"id": 3}]}, r"categories\[0\]: expected the key 'name'"),
        ({"categories": [{"name": "car"}]}, r"categories\[0\]: expected the key 'id'"),
        ({"categories": [{"id": "x", "name": "a"}]}, r"categories\[0\]\.id: .*got the text 'x'"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "the id 3 twice"),
        ({"categories": []}, "at least one class"),
        ({"categories": {}}, "got no list called 'categories'"),
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


def test_json_that_is_not_coco_is_an_error(tmp_path, make_coco):
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
    with pytest.raises(
        DataError, match=r"the 5 images .*instances\.json lists, 2 are missing; .* a\.png"
    ):
        read_coco(path, images)


def test_missing_image_folder_suggests_the_nearest(tmp_path, make_coco):
    path, images = make_coco(tmp_path)
    expected = rf"expected a folder.*did you mean {re.escape(str(images))}\?"
    with pytest.raises(DataError, match=expected):
        read_coco(path, tmp_path / "image")


def test_images_may_be_in_subfolders(tmp_path, make_coco):
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
    objects = real_train.objects
    assert (len(real_train), len(objects), objects.crowd.sum()) == (178, 1409, 15)
    assert real_train.faults.lines() == []


def test_real_split_has_80_classes_with_gaps(real_train):
    assert len(real_train.objects.label_map) == 80
    assert set(range(1, 91)) - set(real_train.objects.label_map.ids) == {
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


TRIANGLE = [4, 3, 30, 6, 12.5, 25]  # in image 40, which has 30 x 40 pixels


def masks_of(tmp_path, make_coco, *outlines):
    """Objects of class car (label 1) with these outlines, in image 40; the others have none."""
    objects = [annotation(segmentation=outline) for outline in outlines]
    return read_coco(*make_coco(tmp_path, annotations=objects), masks=True)


def run_lengths(mask):
    """Returns COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = np.asarray(mask).ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(starts, prepend=0, append=flat.size)
    return {"size": list(mask.shape), "counts": counts.tolist()}


def compressed(mask):
    code = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": bytes(code["counts"]).decode()}


@pytest.fixture
def blob():
    """Returns a mask of many runs of all lengths, zeros first, in the size of image 40."""
    y, x = np.mgrid[:30, :40]
    return ((x * x + 7 * y * y) % 97 >= 40).astype(np.uint8)


def test_masks_are_read_only_if_requested(tmp_path, make_coco):
    assert read_coco(*make_coco(tmp_path)).masks is None


def test_labels_of_masks_are_background_and_all_categories(tmp_path, make_coco):
    masks = masks_of(tmp_path, make_coco, [TRIANGLE]).masks
    assert masks.label_map == LabelMap.of_masks((BACKGROUND, "car", "dog", "toothbrush"))


def test_polygons_of_an_object_are_drawn_together(tmp_path, make_coco):
    # Whole rows and columns of pixels: a polygon fills those whose centre is inside.
    first, second = [2, 3, 10, 3, 10, 9, 2, 9], [20, 10, 24, 10, 24, 28, 20, 28]
    mask = masks_of(tmp_path, make_coco, [first, second]).mask(3)
    expected = np.zeros((30, 40), int)
    expected[3:9, 2:10] = 1
    expected[10:28, 20:24] = 1
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("encode", [run_lengths, compressed])
def test_run_lengths_are_decoded(tmp_path, make_coco, blob, encode):
    np.testing.assert_array_equal(masks_of(tmp_path, make_coco, encode(blob)).mask(3), blob)


@pytest.mark.parametrize("encode", [run_lengths, compressed])
@pytest.mark.parametrize("value", [0, 1])
def test_run_lengths_may_cover_nothing_or_everything(tmp_path, make_coco, encode, value):
    mask = np.full((30, 40), value, np.uint8)
    np.testing.assert_array_equal(masks_of(tmp_path, make_coco, encode(mask)).mask(3), mask)


def test_outlines_keep_their_image_and_class(tmp_path, make_coco, blob):
    # Objects come in the order of the file, images in that of their ids.
    objects = [
        annotation(category_id=90, segmentation=run_lengths(blob)),
        annotation(category_id=18, image_id=7, segmentation=[[0, 0, 30, 0, 30, 40, 0, 40]]),
    ]
    annotations = read_coco(*make_coco(tmp_path, annotations=objects), masks=True)
    np.testing.assert_array_equal(annotations.mask(3), 3 * blob)
    np.testing.assert_array_equal(annotations.mask(0), np.full((40, 30), 2))
    np.testing.assert_array_equal(annotations.mask(1), np.zeros((32, 48)))


@pytest.mark.parametrize("nothing", [None, [], {}, [[]]])
def test_image_whose_objects_have_no_outlines_has_no_mask(tmp_path, make_coco, nothing):
    objects = [annotation(segmentation=nothing), annotation(image_id=7, segmentation=[TRIANGLE])]
    annotations = read_coco(*make_coco(tmp_path, annotations=objects), masks=True)
    assert annotations.masks.annotated.tolist() == [True, True, True, False, True]
    assert annotations.mask(3) is None
    sample = read_sample(annotations, SampleKey(0, 3))
    np.testing.assert_array_equal(sample.mask, np.full((30, 40), 255))
    (line,) = annotations.faults.lines()
    assert line.startswith("1 images with boxes but without outlines, which have no mask: d.png")


@pytest.mark.parametrize(
    "nothing", [None, [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4], [5, 6]], [[7, 7]]]
)
def test_object_without_usable_outline_is_an_ignored_box(tmp_path, make_coco, nothing):
    # The box of `annotation` is x 1..4, y 2..6; the triangle is drawn over it.
    annotations = masks_of(tmp_path, make_coco, nothing, [TRIANGLE])
    assert annotations.masks.annotated.all()
    expected = masks_of(tmp_path, make_coco, [TRIANGLE]).mask(3)
    expected[2:6, 1:4] = np.where(expected[2:6, 1:4] == 0, 255, expected[2:6, 1:4])
    np.testing.assert_array_equal(annotations.mask(3), expected)
    (line,) = annotations.faults.lines()
    assert line == "1 objects without a usable outline, whose box masks ignore: d.png"


def test_only_object_with_a_box_as_outline_leaves_the_image_in_the_split(tmp_path, make_coco):
    objects = [
        annotation(segmentation=[[1, 2, 3, 4]]),
        annotation(image_id=7, segmentation=[TRIANGLE]),
    ]
    annotations = read_coco(*make_coco(tmp_path, annotations=objects), masks=True)
    assert annotations.masks.annotated.all()
    assert np.unique(annotations.mask(3)).tolist() == [0, 255]


def test_file_without_any_outline_is_an_error(tmp_path, make_coco):
    with pytest.raises(DataError, match=r"instances\.json: expected outlines .*got none"):
        read_coco(*make_coco(tmp_path), masks=True)


BAD_OUTLINES = {
    "odd number of numbers": [[*TRIANGLE, 7]],
    "flat polygon": TRIANGLE,
    "text in a polygon": [["a", *TRIANGLE[1:]]],
    "null in a polygon": [[None, *TRIANGLE[1:]]],
    "NaN in a polygon": [[np.nan, *TRIANGLE[1:]]],
    "far polygon": [[1e12, *TRIANGLE[1:]]],  # the rasteriser would not return
    "text": "polygon",
    "number": 5,
    "run lengths of another size": run_lengths(np.ones((40, 30))),
    "run lengths without size": {"counts": [0, 1200]},
    "run lengths without counts": {"size": [30, 40]},
    "too few pixels": {"size": [30, 40], "counts": [0, 1199]},
    "too many pixels": {"size": [30, 40], "counts": [0, 1201]},
    "negative run": {"size": [30, 40], "counts": [-1, 1201]},
    "text as run": {"size": [30, 40], "counts": ["0", 1200]},
    "fraction as run": {"size": [30, 40], "counts": [0.5, 1199.5]},
    "compressed garbage": {"size": [30, 40], "counts": "hello, world"},
    "compressed garbage of letters beyond ASCII": {"size": [30, 40], "counts": "h\u00e9llo"},
    "compressed run without end": {"size": [30, 40], "counts": "o" * 50},
    "compressed of another size": compressed(np.ones((31, 40), np.uint8)) | {"size": [30, 40]},
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("outline", BAD_OUTLINES.values(), ids=BAD_OUTLINES)
def test_bad_outline_is_one_short_error_naming_file_and_annotation(tmp_path, make_coco, outline):
    expected = r"instances\.json: annotation 77: .*run lengths of 30x40 pixels .*, got "
    with pytest.raises(DataError, match=expected) as caught:
        masks_of(tmp_path, make_coco, outline)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_masks_of_the_shapes_equal_the_rendered_ones(tmp_path):
    spec = ShapesSpec(num_train=3, num_val=1, size=(120, 160))
    make_shapes(tmp_path / "shapes", spec, show_progress=False)
    root = tmp_path / "shapes"
    annotations = read_coco(root / "annotations/instances_train.json", root / "train", masks=True)
    for index in range(3):
        scene = render_scene(spec, "train", index)
        expected = np.zeros(scene.image.shape[:2], int)
        for label, visible in zip(scene.labels, scene.visible, strict=True):
            expected[visible] = 1 + label
        np.testing.assert_array_equal(annotations.mask(index), expected)


def drawn_by_pycocotools(coco, image_id, label_of_category):
    """Returns the rule in plain words: a pixel of one instance alone has its label, of two none."""
    image = coco.imgs[image_id]
    shape = (image["height"], image["width"])
    count, mask = np.zeros(shape, int), np.zeros(shape, int)
    for a in coco.imgToAnns[image_id]:
        label = label_of_category.get(a["category_id"])
        if label is not None:
            inside = coco.annToMask(a) > 0
            count += inside
            mask[inside] = 255 if a["iscrowd"] else label
    return np.where(count > 1, 255, mask)


@pytest.fixture(scope="module")
def real_outlines(real_data):
    path = real_data("coco") / "annotations/instances_train2017.json"
    return COCO(path), read_coco(path, real_data("coco") / "train2017", masks=True)


# pycocotools converts its arrays in a way that numpy 2 is about to drop.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("names", [None, (BACKGROUND, *VOC_NAMES)], ids=["all", "voc"])
def test_real_masks_equal_those_of_pycocotools(real_outlines, names):
    coco, annotations = real_outlines
    label_map = annotations.masks.label_map if names is None else LabelMap.of_masks(names)
    annotations = annotations.with_mask_label_map(label_map)
    assert annotations.masks.annotated.all()
    label_of_category = {id_: label_map.find(c["name"]) for id_, c in coco.cats.items()}
    seen = set()
    for index in range(0, len(annotations), 3):
        mask = annotations.mask(index)
        expected = drawn_by_pycocotools(coco, int(annotations.image_ids[index]), label_of_category)
        np.testing.assert_array_equal(mask, expected)
        seen |= set(np.unique(mask).tolist())
    assert {0, 255} < seen
    assert len(seen) >= 20


def test_real_images_with_only_boxes_have_no_mask(real_data):
    root = real_data("coco")
    annotations = read_coco(
        root / "annotations/instances_val2017.json", root / "val2017", masks=True
    )
    assert (len(annotations), annotations.masks.annotated.sum()) == (183, 56)
