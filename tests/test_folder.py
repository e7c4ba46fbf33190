import numpy as np
import pytest
from conftest import write_noise
from PIL import Image

from mbv2det.data.dataset import read_sample
from mbv2det.data.folder import MaskSource, read_masks
from mbv2det.errors import DataError
from mbv2det.labels import BACKGROUND, VOC_NAMES, LabelMap
from mbv2det.structures import SampleKey

LABELS = LabelMap.of_masks((BACKGROUND, "road", "tree"))


def write_mask(path, value):
    """Returns a mask of one value, of the size that images have here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30), value).save(path)


def source_of(root, images, masks, list_lines=None):
    """Returns a folder of images, and masks of values 0, 1, ... in the order given."""
    for name in images:
        write_noise(root / "images" / name, 30, 40)
    (root / "masks").mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(masks):
        write_mask(root / "masks" / name, value)
    listed = root / "list.txt" if list_lines is not None else None
    if listed is not None:
        listed.write_text("\n".join(list_lines) + "\n")
    return MaskSource(root / "images", (root / "masks",), listed)


def read(*sources, ignore_value=255):
    return read_masks(sources, LABELS, ignore_value)


def pairs(annotations):
    """Returns the value that fills the mask of each image, by the name of the image."""
    values = [np.unique(annotations.mask(index)).item() for index in range(len(annotations))]
    return dict(
        zip(
            [annotations.path(index).name for index in range(len(annotations))], values, strict=True
        )
    )


def test_image_and_mask_are_paired_by_name(tmp_path):
    annotations = read(
        source_of(tmp_path, ["b.jpg", "a.png", "c.JPG"], ["a.png", "b.png", "c.PNG"])
    )
    assert pairs(annotations) == {"a.png": 0, "b.jpg": 1, "c.JPG": 2}
    assert annotations.image_ids.tolist() == ["a", "b", "c"]
    assert annotations.objects is None
    assert annotations.faults.lines() == []


def test_names_are_paired_within_folders_of_any_depth(tmp_path):
    names = ["x/a.png", "x/y/a.png", "a.png"]
    annotations = read(source_of(tmp_path, names, names))
    assert annotations.image_ids.tolist() == ["a", "x/a", "x/y/a"]
    assert [annotations.mask(index)[0, 0] for index in range(3)] == [2, 0, 1]
    assert annotations.path(2) == tmp_path / "images/x/y/a.png"


@pytest.mark.parametrize("stem", ["2012.07.31", "my image"])
def test_names_may_contain_dots_and_spaces(tmp_path, stem):
    annotations = read(source_of(tmp_path, [f"{stem}.jpg"], [f"{stem}.png"], [stem]))
    assert annotations.image_ids.tolist() == [stem]


def test_list_gives_the_images_in_its_order(tmp_path):
    names = ["a.png", "b.png", "x/c.png"]
    annotations = read(source_of(tmp_path, names, names, ["x/c", "", "a.png"]))
    assert annotations.image_ids.tolist() == ["x/c", "a"]
    assert pairs(annotations) == {"c.png": 2, "a.png": 0}


@pytest.mark.parametrize("line", ["000001 -1", "000001  1", "000001.jpg 1", "000001.jpg\t0"])
def test_list_may_have_a_second_column(tmp_path, line):
    annotations = read(source_of(tmp_path, ["000001.jpg"], ["000001.png"], [line]))
    assert annotations.image_ids.tolist() == ["000001"]


def test_listed_name_may_end_in_a_number(tmp_path):
    names = ["road.png", "road 1.png"]
    assert pairs(read(source_of(tmp_path, names, names, ["road 1"]))) == {"road 1.png": 1}


def test_image_without_a_mask_may_be_left_out_and_counted(tmp_path):
    annotations = read_masks(
        [source_of(tmp_path, ["a.png", "b.png"], ["a.png"])], LABELS, 255, every_image=False
    )
    assert pairs(annotations) == {"a.png": 0}
    assert annotations.faults.lines() == ["1 images without a mask: b.png"]


def test_several_lists_become_one_split(tmp_path):
    first = source_of(tmp_path / "1", ["a.png", "b.png"], ["a.png", "b.png"], ["b"])
    second = source_of(tmp_path / "2", ["a.png"], ["a.png"])
    annotations = read(first, second)
    assert annotations.files.tolist() == [
        str(tmp_path / "1/images/b.png"),
        str(second.images / "a.png"),
    ]
    assert [annotations.mask(index)[0, 0] for index in range(2)] == [1, 0]


def test_mask_comes_from_the_first_folder_that_has_it(tmp_path):
    source = source_of(tmp_path, ["a.png", "b.png"], ["a.png"])
    write_mask(tmp_path / "more/a.png", 2)
    write_mask(tmp_path / "more/b.png", 2)
    both = MaskSource(source.images, (tmp_path / "masks", tmp_path / "more"), None)
    assert pairs(read(both)) == {"a.png": 0, "b.png": 2}


def test_second_folder_may_be_absent(tmp_path):
    source = source_of(tmp_path, ["a.png"], ["a.png"])
    both = MaskSource(source.images, (tmp_path / "masks", tmp_path / "more"), None)
    assert pairs(read(both)) == {"a.png": 0}


def test_masks_without_an_image_are_counted(tmp_path):
    masks = ["a.png", "z.png", "b.png", "k.png"]
    (line,) = read(source_of(tmp_path, ["a.png"], masks)).faults.lines()
    assert line.startswith("3 masks without an image left out: ")
    assert [line.index(f"masks/{name}.png") for name in "bkz"] == sorted(
        line.index(f"masks/{name}.png") for name in "bkz"
    )


def test_masks_that_a_list_leaves_out_are_not_counted(tmp_path):
    assert read(source_of(tmp_path, ["a.png"], ["a.png", "b.png"], ["a"])).faults.lines() == []


@pytest.mark.parametrize("listed", [None, ["a", "b"]])
def test_missing_mask_is_one_error_naming_it_and_its_image(tmp_path, listed):
    source = source_of(tmp_path, ["a.png", "b.jpg"], ["a.png"], listed)
    expected = rf"^{tmp_path}/masks/b\.png: expected the mask of {tmp_path}/images/b\.jpg, found"
    with pytest.raises(DataError, match=expected) as caught:
        read(source)
    assert "\n" not in str(caught.value)


def test_missing_image_is_one_error_naming_it_and_the_list(tmp_path):
    source = source_of(tmp_path, ["a.png"], ["a.png", "b.png"], ["a", "b"])
    with pytest.raises(DataError, match=rf"^{tmp_path}/images/b\.\*: .*{tmp_path}/list\.txt lists"):
        read(source)


def test_missing_list_is_an_error(tmp_path):
    source = source_of(tmp_path, ["a.png"], ["a.png"])
    with pytest.raises(DataError, match=r"none\.txt: expected a list of image names"):
        read(MaskSource(source.images, source.masks, tmp_path / "none.txt"))


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_missing_folder_is_an_error(tmp_path, folder):
    source = source_of(tmp_path, ["a.png"], ["a.png"])
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{folder}: expected a folder, found none"):
        read(source)


def test_empty_folders_are_an_error(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="expected at least one image, got none"):
        read(source_of(tmp_path, [], []))


def test_ignore_value_of_the_data_set_is_used(tmp_path):
    annotations = read(source_of(tmp_path, ["a.png"], ["a.png"]), ignore_value=9)
    write_mask(tmp_path / "masks/a.png", 9)
    assert pairs(annotations) == {"a.png": 255}


@pytest.mark.parametrize(("split", "count"), [("train", 178), ("val", 155)])
def test_real_voc_masks_are_read(real_data, split, count):
    root = real_data("voc21") / "VOC2012"
    folders = (root / "SegmentationClass", root / "SegmentationClassAug")
    listed = root / f"ImageSets/Segmentation/{split}.txt"
    source = MaskSource(root / "JPEGImages", folders, listed)
    annotations = read_masks([source], LabelMap.of_masks((BACKGROUND, *VOC_NAMES)), 255)
    assert len(annotations) == count
    seen = set()
    for index in range(count):
        seen |= set(np.unique(annotations.mask(index)).tolist())
    # There is no sheep in the training split.
    assert seen == {*range(21), 255} - ({17} if split == "train" else set())


def test_real_photo_and_mask_have_one_size(real_data):
    root = real_data("voc21") / "VOC2012"
    source = MaskSource(
        root / "JPEGImages",
        (root / "SegmentationClass",),
        root / "ImageSets/Segmentation/val.txt",
    )
    annotations = read_masks([source], LabelMap.of_masks((BACKGROUND, *VOC_NAMES)), 255)
    for index in range(10):
        sample = read_sample(annotations, SampleKey(0, index))
        assert sample.mask.shape == sample.image.shape[:2]
        assert sample.instances is None
