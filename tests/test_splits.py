"""From the data section of a configuration to images, boxes and masks."""

import numpy as np
import pytest
from conftest import COCO, voc_object, write_noise
from PIL import Image

from mbv2det.cli.evaluation import with_own_classes
from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data.splits import read_split
from mbv2det.data.statistics import describe_masks
from mbv2det.errors import ConfigError, DataError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap

VOC21 = (BACKGROUND, *VOC_NAMES)
CROPS = (BACKGROUND, "crop", "weed")
DOG, PERSON, HORSE, CAT = 12, 15, 13, 8


def write_image(path):
    write_noise(path, 12, 16)


def write_mask(path, left, right):
    """Returns a mask whose halves have these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((12, 16), left, np.uint8)
    values[:, 8:] = right
    Image.fromarray(values).save(path)


def write_lines(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_xml(path, name):
    size = "<size><width>16</width><height>12</height></size>"
    content = voc_object(name, (2, 3, 9, 8))
    write_lines(path, f"<annotation>{size}{content}</annotation>")


def read(root, split=None, *, boxes=False, masks=True, **data):
    where = SplitConfig(**(split or {}))
    config = DataConfig(root=str(root), **data)
    return read_split(config, where, "data.train", boxes=boxes, masks=masks)


def refused(error, root, split=None, **arguments):
    """Returns the one line that reading ends in."""
    with pytest.raises(error) as caught:
        read(root, split, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels_in(annotations):
    """Returns the labels in the mask of every image; None where it has none."""
    masks = [annotations.mask(index) for index in range(len(annotations))]
    values = [None if mask is None else np.unique(mask).tolist() for mask in masks]
    return dict(zip(annotations.image_ids.tolist(), values, strict=True))


def boxes_in(annotations):
    """Returns the number of boxes of every image; None where nobody annotated them."""
    counts = [annotations.instances(index, (12, 16)) for index in range(len(annotations))]
    numbers = [None if instances is None else len(instances) for instances in counts]
    return dict(zip(annotations.image_ids.tolist(), numbers, strict=True))


# VOC


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Returns a VOCdevkit: a: boxes, b: both, c: mask, d and b: SBD's mask, e: val, f: 2007."""
    root = tmp_path_factory.mktemp("voc")
    year_folder = root / "VOC2012"
    for name in "abcde":
        write_image(year_folder / f"JPEGImages/{name}.png")
    for name, class_name in {"a": "dog", "b": "cat", "e": "dog"}.items():
        write_xml(year_folder / f"Annotations/{name}.xml", class_name)
    for name, values in {"b": (0, DOG), "c": (PERSON, 255), "e": (0, CAT)}.items():
        write_mask(year_folder / f"SegmentationClass/{name}.png", *values)
    write_mask(year_folder / "SegmentationClassAug/b.png", 1, 1)
    write_mask(year_folder / "SegmentationClassAug/d.png", 0, CAT)
    write_lines(year_folder / "ImageSets/Main/train.txt", "a", "b")
    write_lines(year_folder / "ImageSets/Segmentation/train.txt", "b", "c")
    write_lines(year_folder / "ImageSets/Segmentation/train_aug.txt", "b", "d")
    for subfolder in ("Main", "Segmentation"):
        write_lines(year_folder / f"ImageSets/{subfolder}/val.txt", "e")
        write_lines(root / f"VOC2007/ImageSets/{subfolder}/train.txt", "f")
    write_image(root / "VOC2007/JPEGImages/f.png")
    write_xml(root / "VOC2007/Annotations/f.xml", "horse")
    write_mask(root / "VOC2007/SegmentationClass/f.png", 0, HORSE)
    write_lines(year_folder / "mine.txt", "b.png 1", "a.png -1")
    return root


def read_voc(root, split=None, **arguments):
    return read(root, {"split": "train"} | (split or {}), format="voc", **arguments)


def test_voc_masks_have_vocs_labels(voc):
    annotations = read_voc(voc)
    assert annotations.masks.label_map == LabelMap.of_masks(VOC21)
    assert labels_in(annotations) == {"b": [0, 12], "c": [15, 255]}
    assert annotations.objects is None


def test_vocs_boxes_are_read_without_masks(voc):
    annotations = read_voc(voc, boxes=True, masks=False)
    assert boxes_in(annotations) == {"a": 1, "b": 1}
    assert annotations.masks is None


def test_voc_classes_not_chosen_are_background(voc):
    annotations = read_voc(voc, classes=("dog",))
    assert annotations.masks.label_map == LabelMap((BACKGROUND, "dog"), (0, DOG))
    assert labels_in(annotations) == {"b": [0, 1], "c": [0, 255]}
    (line,) = annotations.faults.lines()
    assert "taken for background (aeroplane, bicycle, " in line


def test_class_that_vocs_masks_lack_is_one_line(voc):
    line = refused(ConfigError, voc, {"split": "train"}, format="voc", classes=("dog", "zebra"))
    assert line.startswith(
        "data.classes: expected classes of VOC, which VOC's masks have, got 'zebra'"
    )


def test_configured_mask_classes_are_the_values_of_voc_masks(voc):
    names = tuple(f"class {value}" for value in range(16))
    annotations = read_voc(voc, mask_classes=names)
    assert annotations.masks.label_map == LabelMap.of_masks(names)
    assert labels_in(annotations) == {"b": [0, 12], "c": [15, 255]}


def test_configured_mask_classes_may_have_values_with_gaps(voc):
    annotations = read_voc(voc, mask_classes=CROPS, mask_values=(0, DOG, PERSON))
    assert annotations.masks.label_map == LabelMap(CROPS, (0, DOG, PERSON))
    assert labels_in(annotations) == {"b": [0, 1], "c": [2, 255]}


def test_voc_masks_may_have_another_ignored_value(voc):
    names = {"mask_classes": (BACKGROUND, "crop"), "mask_values": (0, CAT), "ignore_index": DOG}
    annotations = read_voc(voc, {"split": "train_aug"}, **names)
    assert labels_in(annotations) == {"b": [0, 255], "d": [0, 1]}


def test_vocs_21_labels_may_be_used_with_chosen_classes(voc):
    annotations = read_voc(voc, boxes=True, classes=("dog",), mask_classes="voc")
    assert annotations.objects.label_map.names == ("dog",)
    assert annotations.masks.label_map == LabelMap.of_masks(VOC21)


def test_values_of_another_number_than_classes_are_refused(voc):
    arguments = {"mask_classes": CROPS, "mask_values": (0, 1)}
    line = refused(ConfigError, voc, {"split": "train"}, format="voc", **arguments)
    assert line.startswith(
        "data.mask_values: expected 3 values, one for each of background, crop, weed"
    )


def test_each_voc_split_may_have_a_year(voc):
    split = {"split": ("train", "train"), "year": (2012, 2007)}
    assert labels_in(read_voc(voc, split)) == {"b": [0, 12], "c": [15, 255], "f": [0, 13]}
    assert boxes_in(read_voc(voc, split, boxes=True, masks=False)) == {"a": 1, "b": 1, "f": 1}


def test_one_year_serves_several_voc_splits(voc):
    assert [*labels_in(read_voc(voc, {"split": ("train", "val")}))] == ["b", "c", "e"]


def test_masks_may_come_from_other_years_than_boxes(voc):
    split = {"year": 2012, "mask_split": ("val", "train"), "mask_year": (2012, 2007)}
    annotations = read_voc(voc, split, boxes=True)
    assert boxes_in(annotations) == {"a": 1, "b": 1, "e": None, "f": None}
    assert labels_in(annotations) == {"a": None, "b": None, "e": [0, 8], "f": [0, 13]}


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ({"split": ("train", "val"), "year": (2012,)}, "got 1 and 2 (train, val)"),
        ({"split": "train", "year": (2012, 2007)}, "got 2 and 1 (train)"),
        ({"mask_split": "val", "mask_year": (2012, 2007)}, "got 2 and 1 (val)"),
    ],
)
def test_voc_years_that_are_not_those_of_the_splits_are_one_line(voc, split, numbers):
    line = refused(ConfigError, voc, split, format="voc")
    assert line.startswith(f"data.train: expected as many years as splits, {numbers}")


def test_vocs_mask_takes_precedence_over_sbds(voc):
    assert labels_in(read_voc(voc, {"split": "train_aug"})) == {"b": [0, 12], "d": [0, 8]}


def test_voc_folder_may_be_the_root_itself(voc):
    assert [*labels_in(read_voc(voc / "VOC2012"))] == ["b", "c"]


@pytest.fixture(scope="module")
def own_voc(tmp_path_factory):
    """Returns VOC's files in other folders; one of the two listed images has no mask."""
    root = tmp_path_factory.mktemp("own")
    for name in "abc":
        write_image(root / f"pictures/{name}.png")
        write_xml(root / f"boxes/{name}.xml", "dog")
    write_mask(root / "labels/a.png", 0, DOG)
    write_lines(root / "both.txt", "a", "b")
    write_lines(root / "masked.txt", "a")
    return root


OWN = {"images": "pictures", "annotations": "boxes", "masks": "labels"}


def test_voc_folders_and_list_may_have_any_names(own_voc):
    annotations = read(own_voc, OWN | {"list": "masked.txt"}, format="voc")
    assert labels_in(annotations) == {"a": [0, 12]}
    assert annotations.path(0) == own_voc / "pictures/a.png"


def test_listed_image_without_a_mask_is_an_error_for_segmentation_alone(own_voc):
    line = refused(DataError, own_voc, OWN | {"list": "both.txt"}, format="voc")
    assert line.startswith(f"{own_voc}/labels/b.png: expected the mask of")


def test_image_of_a_users_list_may_have_only_boxes_and_is_counted(own_voc):
    annotations = read(own_voc, OWN | {"list": "both.txt"}, format="voc", boxes=True)
    assert boxes_in(annotations) == {"a": 1, "b": 1}
    assert labels_in(annotations) == {"a": [0, 12], "b": None}
    assert annotations.faults.lines() == ["1 images without a mask: b.png"]


def test_without_a_list_every_image_is_read(own_voc):
    annotations = read(own_voc, OWN, format="voc", boxes=True)
    assert labels_in(annotations) == {"a": [0, 12], "b": None, "c": None}
    assert annotations.faults.lines() == ["2 images without a mask: b.png, c.png"]


def test_joint_voc_takes_boxes_of_main_and_masks_of_segmentation(voc):
    annotations = read_voc(voc, boxes=True)
    assert boxes_in(annotations) == {"a": 1, "b": 1, "c": None}
    assert labels_in(annotations) == {"a": None, "b": [0, 12], "c": [15, 255]}
    assert annotations.faults.lines() == []


def test_joint_list_may_have_suffixes_and_a_second_column(voc):
    annotations = read(voc / "VOC2012", {"list": "mine.txt"}, format="voc", boxes=True)
    assert boxes_in(annotations) == {"b": 1, "a": 1}
    assert labels_in(annotations) == {"b": [0, 12], "a": None}


def test_joint_image_in_vocs_list_of_masks_needs_a_mask(voc, tmp_path):
    place = tmp_path / "VOC2012"
    (place / "SegmentationClass").mkdir(parents=True)
    for name in ("JPEGImages", "Annotations", "ImageSets"):
        (place / name).symlink_to(voc / "VOC2012" / name)
    line = refused(DataError, tmp_path, {"split": "train"}, format="voc", boxes=True)
    assert line.startswith(f"{place}/SegmentationClass/b.png: expected the mask of")


def test_chosen_classes_are_those_of_boxes_and_masks(voc):
    annotations = read_voc(voc, boxes=True, classes=("cat", "dog"))
    assert annotations.objects.label_map.names == ("cat", "dog")
    assert annotations.masks.label_map.names == (BACKGROUND, "cat", "dog")
    assert labels_in(annotations) == {"a": None, "b": [0, 2], "c": [0, 255]}


# Folders


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of images and of masks with these values left and right."""

    def make(**values):
        for name, (left, right) in values.items():
            write_image(tmp_path / f"images/{name}.png")
            write_mask(tmp_path / f"masks/{name}.png", left, right)
        return tmp_path

    return make


def read_folder(root, split=None, **arguments):
    return read(root, split, format="folder", **arguments)


def test_folder_needs_names(folder):
    line = refused(ConfigError, folder(a=(0, 1)), format="folder")
    assert line.startswith("data.classes: expected the names of the masks' values 0, 1, ...")


def test_names_are_those_of_the_values_in_order(folder):
    annotations = read_folder(folder(a=(0, 2), b=(1, 255)), classes=CROPS)
    assert annotations.masks.label_map == LabelMap.of_masks(CROPS)
    assert labels_in(annotations) == {"a": [0, 2], "b": [1, 255]}
    assert annotations.objects is None


def test_values_of_a_folder_may_have_gaps(folder):
    annotations = read_folder(folder(a=(0, 8), b=(7, 255)), classes=CROPS, mask_values=(0, 7, 8))
    assert annotations.masks.label_map.ids == (0, 7, 8)
    assert labels_in(annotations) == {"a": [0, 2], "b": [1, 255]}


def test_binary_masks_are_read_without_an_ignored_value(folder):
    root = folder(a=(0, 255))
    names = {"classes": (BACKGROUND, "hand"), "mask_values": (0, 255)}
    assert labels_in(read_folder(root, ignore_index=None, **names)) == {"a": [0, 1]}
    line = refused(DataError, root, format="folder", **names)
    assert line.startswith("data.ignore_index: expected a value that is no label, got 255")


def test_masks_of_a_folder_may_have_vocs_values(folder):
    annotations = read_folder(folder(a=(0, DOG)), mask_classes="voc")
    assert annotations.masks.label_map == LabelMap.of_masks(VOC21)


def test_folder_has_no_boxes(folder):
    line = refused(ConfigError, folder(a=(0, 1)), format="folder", classes=CROPS, boxes=True)
    expected = "expected one of coco, voc, yolo, labelme, cvat for boxes, got folder"
    assert line == f"data.format: {expected}, which has only masks"


def test_folders_and_list_may_have_any_names(folder):
    root = folder(a=(0, 1), b=(1, 2))
    (root / "images").rename(root / "x")
    (root / "masks").rename(root / "y")
    write_lines(root / "names.txt", "b.png")
    split = {"images": "x", "masks": "y", "list": "names.txt"}
    assert labels_in(read_folder(root, split, classes=CROPS)) == {"b": [1, 2]}


def test_256_labels_are_refused(folder):
    names = tuple(f"class {value}" for value in range(256))
    arguments = {"classes": names, "ignore_index": None}
    line = refused(DataError, folder(a=(0, 1)), format="folder", **arguments)
    assert line.startswith("masks: expected 1 to 255 labels with values 0..255, got 256")


# COCO


def outlined(annotation):
    """Returns an annotation with its box as outline."""
    x, y, w, h = annotation["bbox"]
    return annotation | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


OUTLINED = [outlined(annotation) for annotation in COCO["annotations"]]
WHERE = {"annotations": "instances.json", "images": "images"}


@pytest.fixture(scope="module")
def coco(tmp_path_factory, make_coco):
    root = tmp_path_factory.mktemp("coco")
    make_coco(root, annotations=OUTLINED)
    return root


def test_coco_masks_are_background_and_the_categories(coco):
    annotations = read(coco, WHERE, boxes=True)
    assert annotations.objects.label_map.names == ("car", "dog", "toothbrush")
    assert annotations.masks.label_map == LabelMap.of_masks(
        (BACKGROUND, "car", "dog", "toothbrush")
    )
    assert labels_in(annotations) == {
        "7": [0, 1], "12": [255], "31": [0], "40": [0, 3, 255], "52": [0, 2]
    }  # fmt: skip


def test_coco_masks_are_read_without_boxes(coco):
    assert read(coco, WHERE).objects is None


def test_cocos_boxes_are_read_without_masks(coco):
    assert read(coco, WHERE, boxes=True, masks=False).masks is None


def test_chosen_coco_classes_are_those_of_the_masks(coco):
    annotations = read(coco, WHERE, classes=("dog", "car"))
    assert annotations.masks.label_map.names == (BACKGROUND, "dog", "car")
    assert labels_in(annotations)["52"] == [0, 1]
    assert labels_in(annotations)["40"] == [0, 2]


def test_coco_masks_in_vocs_labels(coco):
    annotations = read(coco, WHERE, boxes=True, mask_classes="voc")
    assert annotations.masks.label_map == LabelMap.of_masks(VOC21)
    assert annotations.objects.label_map.names == ("car", "dog", "toothbrush")
    assert labels_in(annotations) == {
        "7": [0, 7], "12": [255], "31": [0], "40": [0, 7], "52": [0, DOG]
    }  # fmt: skip


def test_coco_masks_of_some_categories(coco):
    annotations = read(coco, WHERE, boxes=True, mask_classes=(BACKGROUND, "dog"))
    assert labels_in(annotations)["52"] == [0, 1]
    assert labels_in(annotations)["7"] == [0]
    assert len(annotations.objects.label_map) == 3


def test_coco_masks_without_background_ignore_the_rest(coco):
    assert labels_in(read(coco, WHERE, mask_classes=("dog", "car")))["52"] == [0, 255]


def test_unknown_category_of_masks_is_one_line_with_the_nearest(coco):
    line = refused(DataError, coco, WHERE, mask_classes=(BACKGROUND, "doge"))
    assert "got 'doge'" in line
    assert line.endswith("did you mean 'dog'?")


@pytest.mark.parametrize(
    ("data", "split", "setting"),
    [({"mask_values": (0, 1)}, {}, "data.mask_values"), ({}, {"masks": "m"}, "data.train.masks")],
)
def test_coco_has_no_mask_files(coco, data, split, setting):
    line = refused(ConfigError, coco, WHERE | split, **data)
    assert line.startswith(f"{setting}: expected none, since data.format is coco, got")
    assert line.endswith("this setting belongs to voc and folder")


def test_category_called_background_is_the_masks_background(tmp_path, make_coco):
    names = {90: "toothbrush", 3: "car", 18: BACKGROUND}
    categories = [{"id": id_, "name": name} for id_, name in names.items()]
    make_coco(tmp_path, annotations=OUTLINED, categories=categories)
    annotations = read(tmp_path, WHERE, boxes=True)
    assert annotations.objects.label_map.names == ("car", BACKGROUND, "toothbrush")
    assert annotations.masks.label_map.names == (BACKGROUND, "car", "toothbrush")
    assert labels_in(annotations)["52"] == [0]
    assert labels_in(annotations)["7"] == [0, 1]


def test_255_categories_are_too_many_for_masks_alone(tmp_path, make_coco):
    categories = [{"id": id_, "name": f"class {id_}"} for id_ in range(1, 256)]
    make_coco(tmp_path, annotations=OUTLINED, categories=categories)
    line = refused(ConfigError, tmp_path, WHERE)
    assert line.startswith("data.mask_classes: expected at most 255 labels, got the 256 of")
    assert len(read(tmp_path, WHERE, boxes=True, masks=False).objects.label_map) == 255
    some = (BACKGROUND, "class 3")
    assert labels_in(read(tmp_path, WHERE, mask_classes=some))["7"] == [0, 1]


def test_254_categories_are_not_too_many(tmp_path, make_coco):
    categories = [{"id": id_, "name": f"class {id_}"} for id_ in range(1, 255)]
    make_coco(tmp_path, annotations=OUTLINED, categories=categories)
    assert labels_in(read(tmp_path, WHERE))["7"] == [0, 3]


@pytest.mark.parametrize("key", ["annotations", "images"])
def test_coco_without_file_or_folder_names_is_one_line(coco, key):
    line = refused(ConfigError, coco, {k: v for k, v in WHERE.items() if k != key})
    assert line.startswith("data.train")
    assert f"expected data.train.{key}" in line or f"data.train.{key}: expected" in line


def test_missing_root_is_one_line(tmp_path):
    line = refused(ConfigError, tmp_path / "none", WHERE)
    assert line == f"data.root: expected a folder, found none at {tmp_path}/none"


# Use in training and evaluation


def test_statistics_list_the_shares_of_the_labels(folder):
    root = folder(a=(0, 0), b=(0, 2), c=(255, 0), d=(2, 0))
    assert describe_masks(read_folder(root, classes=CROPS)) == (
        "pixels of 4 of 4 masks: background 62.5%, weed 25.0%; ignored 12.5%; never seen: crop"
    )


def test_statistics_refuse_binary_masks_whose_255_is_ignored(folder):
    split = read_folder(folder(a=(0, 255), b=(0, 255)), classes=(BACKGROUND, "hand"))
    expected = r"expected pixels of background, hand, got a single label in 2 masks and 50\.0%"
    with pytest.raises(DataError, match=expected) as caught:
        describe_masks(split)
    assert "\n" not in str(caught.value)


def test_statistics_do_not_count_images_without_a_mask(voc):
    line = describe_masks(read_voc(voc, boxes=True))
    assert line.startswith("pixels of 2 of 2 masks: background 25.0%, dog 25.0%, person 25.0%;")


WEIGHTS = {
    "detection": LabelMap(("dog",), (18,)),
    "segmentation": LabelMap((BACKGROUND, "hand"), (0, 255)),
}


def test_eval_of_a_folder_uses_the_weights_names_and_values():
    annotations = with_own_classes(DataConfig(format="folder", ignore_index=None), WEIGHTS)
    expected = DataConfig(
        format="folder", ignore_index=None, classes=(BACKGROUND, "hand"), mask_values=(0, 255)
    )
    assert annotations == expected


def test_eval_of_a_folder_uses_the_weights_names_for_configured_values():
    annotations = with_own_classes(DataConfig(format="folder", mask_values=(3, 4)), WEIGHTS)
    assert (annotations.classes, annotations.mask_values) == ((BACKGROUND, "hand"), (3, 4))


@pytest.mark.parametrize("names", [{"classes": CROPS}, {"mask_classes": "voc"}])
def test_eval_of_a_folder_keeps_configured_names(names):
    data = DataConfig(format="folder", **names)
    assert with_own_classes(data, WEIGHTS) == data


def test_eval_of_a_folder_ignores_the_names_of_a_detector():
    data = DataConfig(format="folder")
    assert with_own_classes(data, {"detection": WEIGHTS["detection"]}) == data


def test_eval_reads_all_vocs_classes():
    data = DataConfig(format="voc", classes=("dog",))
    assert with_own_classes(data, WEIGHTS) == DataConfig(format="voc")
    # These say what the values in the files mean, which stays true.
    own = DataConfig(format="voc", mask_classes=CROPS, mask_values=(0, 7, 8))
    assert with_own_classes(own, WEIGHTS) == own


def test_eval_reads_all_cocos_classes():
    data = DataConfig(classes=("dog",), mask_classes="voc")
    assert with_own_classes(data, WEIGHTS) == DataConfig()
