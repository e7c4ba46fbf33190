import numpy as np
import pytest
from faster_coco_eval.core import mask as rle
from PIL import Image

from mbv2det.data.annotations import Annotations
from mbv2det.data.index_masks import IndexMasks
from mbv2det.data.instance_masks import InstanceMasks
from mbv2det.data.outlines import OutlineKind, Outlines
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap

VOC = LabelMap.of_masks((BACKGROUND, *VOC_NAMES))
ROAD = LabelMap((BACKGROUND, "road", "tree"), (0, 7, 200))  # values with gaps


def index_masks(tmp_path, image, label_map=VOC, ignore_value=255, **options):
    """Masks of one picture, saved as m.png."""
    image.save(tmp_path / "m.png", **options)
    return IndexMasks.of(label_map, [str(tmp_path / "m.png")], ignore_value)


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint8))


def palette(values):
    """Returns a palette image of the values, with colours that differ from them."""
    image = Image.frombytes("P", np.shape(values)[::-1], np.asarray(values, np.uint8).tobytes())
    image.putpalette([255 - value // 3 for value in range(768)])
    return image


@pytest.mark.parametrize("kind", [grey, palette])
def test_values_are_the_labels(tmp_path, kind):
    values = np.array([[0, 1, 20], [15, 255, 3]])
    mask = index_masks(tmp_path, kind(values)).read(0)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, values)


def test_palette_of_few_bits_keeps_its_values(tmp_path):
    values = np.array([[0, 1, 2, 3, 15]])
    masks = index_masks(tmp_path, palette(values), bits=4)
    np.testing.assert_array_equal(masks.read(0), values)


def test_one_bit_is_background_and_the_first_label(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 255, 0]]).convert("1"))
    assert masks.read(0).tolist() == [[0, 1, 0]]


def test_sixteen_bits_are_read_unchanged(tmp_path):
    masks = index_masks(tmp_path, Image.fromarray(np.array([[0, 20, 255]], np.uint16)))
    assert masks.read(0).tolist() == [[0, 20, 255]]


def test_values_with_gaps_become_labels_in_order(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 7, 200, 255]]), ROAD)
    assert masks.read(0).tolist() == [[0, 1, 2, 255]]


def test_ignore_value_of_the_data_set_becomes_255(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 7, 99]]), ROAD, ignore_value=99)
    assert masks.read(0).tolist() == [[0, 1, 255]]


def test_255_is_an_error_in_a_data_set_with_another_ignore_value(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 255]]), ROAD, ignore_value=99)
    with pytest.raises(DataError, match=r"values 0, 7, 99, 200 of 3 labels .*also got 255$"):
        masks.read(0)


def test_without_an_ignore_value_every_pixel_needs_a_label(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 1, 255]]), ignore_value=None)
    with pytest.raises(DataError, match=r"expected only the values 0\.\.20 .*also got 255"):
        masks.read(0)


def test_255_may_be_a_label_without_an_ignore_value(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 255]]), LabelMap(("a", "b"), (0, 255)), None)
    assert masks.read(0).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (grey([[0, 21, 22, 30]]), "21..22, 30"),
        (palette([[0, 254]]), "254"),
        (Image.fromarray(np.array([[0, 256, 1000]], np.uint16)), "256, 1000"),
        (grey(np.arange(256)[None]), "21..254"),
        (grey(np.arange(30, 60, 2)[None]), r"30, 32, 34, 36, 38, 40, 42, 44, \.\.\."),
    ],
)
def test_value_without_a_label_is_one_error_naming_file_and_values(tmp_path, image, values):
    masks = index_masks(tmp_path, image)
    expected = rf"m\.png: expected only the values 0\.\.20, 255 of 21 labels .*also got {values}$"
    with pytest.raises(DataError, match=expected) as caught:
        masks.read(0)
    assert "\n" not in str(caught.value)


def test_negative_value_is_an_error(tmp_path):
    Image.fromarray(np.array([[0, -1]], np.int32)).save(tmp_path / "m.tif")
    masks = IndexMasks.of(VOC, [str(tmp_path / "m.tif")])
    with pytest.raises(DataError, match=r"also got -1$"):
        masks.read(0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_image_is_one_error_that_says_what_is_expected(tmp_path, mode):
    image = Image.new(mode, (4, 3))
    image.putpixel((1, 1), (1, 2, 3, 4)[: len(mode)])
    masks = index_masks(tmp_path, image)
    expected = rf"^{tmp_path}/m\.png: expected an index image .* in mode {mode}; set data.mask_"
    with pytest.raises(DataError, match=expected) as caught:
        masks.read(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_an_index(tmp_path, mode):
    image = Image.new(mode, (4, 3), (0, 0, 0, 255)[: len(mode)])
    image.putpixel((1, 1), (1, 1, 1, 0)[: len(mode)] if mode != "LA" else (1, 0))
    if mode != "RGB":  # the same alpha everywhere
        image.putalpha(255)
    mask = index_masks(tmp_path, image).read(0)
    assert mask[1, 1] == 1
    assert mask.sum() == 1


def test_missing_file_is_an_error():
    with pytest.raises(DataError, match=r"none\.png: expected a mask, found none"):
        IndexMasks.of(VOC, ["none.png"]).read(0)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n"])
def test_file_that_is_no_image_is_one_error_naming_it(tmp_path, content):
    (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(DataError, match=r"m\.png: ") as caught:
        IndexMasks.of(VOC, [str(tmp_path / "m.png")]).read(0)
    assert "\n" not in str(caught.value)


def test_truncated_file_is_an_error(tmp_path):
    # A truncated image is used, but the missing part of a mask cannot be learnt.
    masks = index_masks(tmp_path, grey(np.random.default_rng(0).integers(0, 21, (64, 64))))
    path = tmp_path / "m.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"m\.png: cannot be decoded \(.*truncated"):
        masks.read(0)


def test_image_without_a_mask_is_not_annotated():
    assert IndexMasks.of(VOC, ["a.png", "", "c.png"]).annotated.tolist() == [True, False, True]


def test_masks_of_some_images_are_in_their_order():
    other = IndexMasks.of(VOC, ["a.png", "b.png", "c.png"]).of_images([2, None, 0])
    assert other.files.tolist() == ["c.png", "", "a.png"]
    assert other.annotated.tolist() == [True, False, True]


def test_label_with_the_ignored_value_is_refused():
    with pytest.raises(DataError, match=r"data\.ignore_index: .*got 7, the value of 'road'"):
        IndexMasks.of(ROAD, [], ignore_value=7)


@pytest.mark.parametrize("value", [-1, 256])
def test_ignore_value_that_no_mask_can_hold_is_refused(value):
    with pytest.raises(DataError, match=rf"data\.ignore_index: .*0\.\.255.* got {value}"):
        IndexMasks.of(ROAD, [], ignore_value=value)


def test_more_labels_than_values_are_refused():
    names = [str(value) for value in range(256)]
    assert len(IndexMasks.of(LabelMap.of_masks(names[:255]), []).label_map) == 255
    with pytest.raises(DataError, match=r"1 to 255 labels .*got 256"):
        IndexMasks.of(LabelMap.of_masks(names), [], ignore_value=None)


@pytest.mark.parametrize("value", [-1, 256])
def test_label_value_that_no_mask_can_hold_is_refused(value):
    with pytest.raises(DataError, match=r"values 0\.\.255"):
        IndexMasks.of(LabelMap(("a", "b"), (0, value)), [])


def test_labels_are_matched_by_name(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 7, 200, 255]]), ROAD)
    other = masks.with_label_map(LabelMap.of_masks((BACKGROUND, "tree", "road")))
    assert other.read(0).tolist() == [[0, 2, 1, 255]]
    assert masks.read(0).tolist() == [[0, 1, 2, 255]]


def test_labels_may_be_matched_twice(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 7, 200, 255]]), ROAD)
    reverse = masks.with_label_map(LabelMap.of_masks(("tree", "road", BACKGROUND)))
    assert reverse.read(0).tolist() == [[2, 1, 0, 255]]
    assert reverse.with_label_map(ROAD).read(0).tolist() == [[0, 1, 2, 255]]


def test_cocos_names_are_matched_with_vocs(tmp_path):
    coco = LabelMap((BACKGROUND, "tv", "airplane", "zebra", "dog"), (0, 1, 2, 3, 4))
    masks = index_masks(tmp_path, grey([[0, 1, 2, 3, 4, 255]]), coco)
    assert masks.with_label_map(VOC).read(0).tolist() == [[0, 20, 1, 0, 12, 255]]


def test_label_that_the_other_map_lacks_is_background(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 7, 200, 255]]), ROAD)
    other = masks.with_label_map(LabelMap.of_masks(("road", BACKGROUND)))
    assert other.read(0).tolist() == [[1, 0, 1, 255]]


def test_label_that_the_other_map_lacks_is_ignored_without_background(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 7, 200, 255]]), ROAD)
    other = masks.with_label_map(LabelMap.of_masks(("tree", "road")))
    assert other.read(0).tolist() == [[255, 1, 0, 255]]


def test_values_without_a_label_have_none_after_relabelling(tmp_path):
    masks = index_masks(tmp_path, grey([[0, 8]]), ROAD).with_label_map(VOC)
    with pytest.raises(DataError, match=r"expected only the values 0, 7, 200, 255 .*also got 8$"):
        masks.read(0)


SIZE = (20, 30)
CLASSES = ("zebra", "dog", "tv")


def box_of(top, left, bottom, right):
    """Returns a full rectangle of the picture."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return mask


def instance_masks(*images, label_map=None):
    """Returns masks; each image is a list of (class, outline or None, crowd)."""
    instances = [instance for image in images for instance in image]
    codes = [b"" if m is None else bytes(rle.encode(m)["counts"]) for _, m, _ in instances]
    kinds = [OutlineKind.RUN_LENGTHS if code else OutlineKind.ABSENT for code in codes]
    return InstanceMasks(
        label_map=label_map or LabelMap.of_masks((BACKGROUND, *CLASSES)),
        class_names=CLASSES,
        sizes=np.array([SIZE] * len(images)),
        starts=np.cumsum([0, *(len(image) for image in images)]),
        classes=np.array([CLASSES.index(name) for name, _, _ in instances], np.int64),
        crowd=np.array([crowd for _, _, crowd in instances], bool),
        boxes=np.zeros((len(instances), 4)),
        outlines=Outlines(
            kinds=np.array(kinds, np.int8),
            numbers=np.zeros(0),
            polygon_starts=np.zeros(1, np.int64),
            first_polygons=np.zeros(len(instances) + 1, np.int64),
            codes=np.frombuffer(b"".join(codes), np.uint8),
            code_starts=np.cumsum([0, *(len(code) for code in codes)]),
        ),
    )


A, B, C = box_of(2, 3, 10, 12), box_of(6, 8, 18, 20), box_of(0, 25, 20, 30)


def test_instances_are_drawn_in_the_labels_of_their_classes():
    masks = instance_masks([("dog", A, False)], [("zebra", C, False), ("tv", A, False)])
    np.testing.assert_array_equal(masks.read(0), 2 * A)
    np.testing.assert_array_equal(masks.read(1), 1 * C + 3 * A)
    assert masks.read(0).dtype == np.uint8


def test_image_without_instances_is_all_background():
    masks = instance_masks([("dog", A, False)], [], [("dog", A, False)])
    assert masks.annotated.all()
    assert masks.read(1).shape == SIZE
    assert not masks.read(1).any()


@pytest.mark.parametrize("names", [("dog", "tv"), ("tv", "dog"), ("dog", "dog")])
def test_pixels_of_two_instances_are_ignored(names):
    masks = instance_masks([(names[0], A, False), (names[1], B, False)])
    first, second = (masks.label_map.label_of_name[name] for name in names)
    mask = masks.read(0)
    assert (mask[(A & B) > 0] == 255).all()
    assert (mask[A > B] == first).all()
    assert (mask[B > A] == second).all()
    assert not mask[(A | B) == 0].any()


def test_pixels_of_three_instances_are_ignored():
    # Ignored by the second, they must not be taken by the third.
    mask = instance_masks([("dog", A, False), ("tv", A, False), ("dog", B, False)]).read(0)
    assert (mask[A > 0] == 255).all()


def test_overlap_with_an_earlier_instance_is_ignored():
    masks = instance_masks([("dog", A, False), ("tv", C, False), ("dog", B, False)])
    np.testing.assert_array_equal(masks.read(0) == 255, (A & B) > 0)


def test_crowds_are_ignored():
    mask = instance_masks([("dog", A, True), ("tv", C, False)]).read(0)
    np.testing.assert_array_equal(mask, 255 * A + 3 * C)


def test_classes_without_a_label_are_background_and_cover_nothing():
    label_map = LabelMap.of_masks((BACKGROUND, "dog"))
    masks = instance_masks(
        [("dog", A, False), ("tv", B, False), ("tv", C, True)], label_map=label_map
    )
    np.testing.assert_array_equal(masks.read(0), A)


def test_without_background_the_pixels_of_no_instance_are_ignored():
    label_map = LabelMap.of_masks(("tv", "dog"))
    mask = instance_masks([("dog", A, False), ("zebra", C, False)], label_map=label_map).read(0)
    np.testing.assert_array_equal(mask, np.where(A > 0, 1, 255))


def test_image_whose_instances_all_lack_an_outline_is_not_annotated():
    masks = instance_masks(
        [("dog", A, False)], [("dog", A, False), ("tv", None, False)], [], [("dog", None, True)]
    )
    assert masks.annotated.tolist() == [True, True, True, False]


def test_box_of_an_instance_without_outline_is_ignored_outside_the_others():
    masks = instance_masks([("tv", None, False), ("dog", A, False)])
    top, left, bottom, right = 4, 5, 15, 16
    masks.boxes[0] = left + 0.5, top + 0.2, right - 0.5, bottom - 0.1
    expected = 255 * box_of(top, left, bottom, right).astype(int)
    expected[A > 0] = masks.label_map.label_of_name["dog"]
    np.testing.assert_array_equal(masks.read(0), expected)


def test_missing_outline_of_a_class_without_a_label_does_not_matter():
    masks = instance_masks([("zebra", None, False)])
    assert masks.annotated.tolist() == [False]
    masks = masks.with_label_map(LabelMap.of_masks((BACKGROUND, "dog")))
    assert masks.annotated.tolist() == [True]
    assert not masks.read(0).any()


def test_instances_become_labels_of_voc_by_its_names():
    masks = instance_masks([("zebra", A, False), ("dog", B, False), ("tv", C, False)])
    np.testing.assert_array_equal(masks.with_label_map(VOC).read(0), 12 * B + 20 * C)


def of_masks(masks):
    """Returns the annotation of one image with this mask alone."""
    return Annotations("split", np.array(["a"]), np.array(["a"]), np.array([SIZE]), masks=masks)


def test_labels_outside_the_classes_are_counted():
    annotations = of_masks(IndexMasks.of(ROAD, ["m.png"]))
    kept = annotations.with_mask_label_map(LabelMap.of_masks((BACKGROUND, "tree")))
    assert kept.faults.lines() == [
        "1 set of mask labels outside the classes, taken for background (road): split"
    ]
    kept = annotations.with_mask_label_map(LabelMap.of_masks(("road", "tree")))
    assert kept.faults.lines() == [
        "1 set of mask labels outside the classes, ignored (background): split"
    ]
    assert annotations.faults.lines() == []


def test_masks_in_the_same_labels_are_unchanged():
    annotations = of_masks(IndexMasks.of(ROAD, ["m.png"]))
    assert annotations.with_mask_label_map(ROAD) is annotations


@pytest.mark.parametrize("names", [("cow", "car"), (BACKGROUND, "car")])
def test_masks_with_only_background_in_common_are_an_error(names):
    with pytest.raises(DataError, match=r"split: expected masks with one of the labels"):
        of_masks(IndexMasks.of(ROAD, ["m.png"])).with_mask_label_map(LabelMap.of_masks(names))
