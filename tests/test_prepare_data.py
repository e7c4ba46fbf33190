"""`prepare_data`: what a folder of data is, and a configuration that trains on it."""

import shlex
import shutil
from pathlib import Path

import data_formats
import numpy as np
import pytest
from conftest import voc_object, write_noise
from PIL import Image
from real_formats import RealContent
from runs import run_command

from mbv2det.build import read_split
from mbv2det.cli.settings import SettingsParser
from mbv2det.config import DataConfig, SplitConfig
from mbv2det.data import splits
from mbv2det.errors import DataError
from mbv2det.prepare.find import find_layout
from mbv2det.prepare.prepared import TASKS, choose_kind, make_splits

ALL = data_formats.BOXES | data_formats.MASKS
BOXES_ALONE = ("yolo_boxes", "voc_boxes")
FOLDERS = ("folder", "color_folder")
VOC_XML = "<annotation><size><width>40</width><height>30</height></size>{}</annotation>"


def write_lists(folder):
    """Returns a writer of lists into a folder."""

    def write(split, names):
        path = folder / f"list_{split}.txt"
        path.write_text("".join(f"{name}\n" for name in names))
        return str(path)

    return write


def split_data(root, kind=None, seed=0):
    """Returns the layout, the tasks and the splits of a folder; lists are written beside it."""
    layout = find_layout(root)
    kind, _ = choose_kind(layout, kind)
    return layout, kind, make_splits(layout, kind, seed, write_lists(root.parent))


def stems(split):
    return [split.path(index).stem for index in range(len(split))]


def prepare(root, out, *options):
    return run_command("prepare_data", root, "--out", out, *options)


def settings_of(config):
    return SettingsParser("").parse([str(config)]).config


@pytest.mark.parametrize("name", ALL)
def test_every_format_is_found_without_a_hint(tmp_path, name):
    root = tmp_path / "data"
    root.mkdir()
    data, _ = ALL[name](root)
    layout, kind, found = split_data(root)
    assert layout.format == data["format"]
    expected = "segmentation" if name in FOLDERS else "joint"
    assert kind == ("detection" if name in BOXES_ALONE else expected)
    # What was found can be read by the settings that the configuration will have.
    train, val = (
        read_split(found.data, getattr(found.data, key), f"data.{key}", TASKS[kind])
        for key in ("train", "val")
    )
    # The only training image is listed twice, since a batch needs two.
    assert sorted({*stems(train)} | {*stems(val)}) == ["one", "two"]
    assert len(train) == 2
    assert stems(found.train) + stems(found.val) == stems(train) + stems(val)


@pytest.mark.parametrize("name", ["coco", "yolo", "cvat_masks"])
def test_a_list_chooses_objects_and_masks_of_its_images(tmp_path, name):
    root = tmp_path / "data"
    root.mkdir()
    data, split = ALL[name](root)
    prefix = "train/images/" if name == "yolo" else ""
    (tmp_path / "two.txt").write_text(f"{prefix}sub/two.png\n")
    config = DataConfig(root=str(root), **data)
    listed = SplitConfig(**split, list=str(tmp_path / "two.txt"))
    read = splits.read_split(config, listed, "data.train", boxes=True, masks=True)
    size, things = data_formats.IMAGES["sub/two"]
    assert [str(file) for file in read.files] == [str(root / (prefix or "images") / "sub/two.png")]
    assert read.size(0) == size
    names = read.objects.label_map.names
    assert [names[label] for label in read.objects.labels] == [thing.name for thing in things]
    np.testing.assert_array_equal(read.mask(0), data_formats.index_mask("sub/two"))


def test_a_list_of_images_that_the_annotation_has_not(tmp_path):
    data, split = data_formats.coco(tmp_path)
    (tmp_path / "list.txt").write_text("one.png\nthree.png\n")
    config = DataConfig(root=str(tmp_path), **data)
    with pytest.raises(
        DataError, match=r"list\.txt: expected images of .*none called 'three\.png'"
    ):
        splits.read_split(
            config, SplitConfig(**split, list="list.txt"), "data.train", boxes=True, masks=False
        )


def voc_beside(root):
    write_voc(root, {"one": voc_object(), "two": voc_object()}, ".", ".")


WRITERS = {
    "coco": data_formats.roboflow_coco,
    "voc": voc_beside,
    "labelme": data_formats.labelme,
    "cvat": data_formats.cvat,
}


@pytest.mark.parametrize("format", WRITERS)
def test_folders_named_after_splits_are_splits(tmp_path, format):
    for name in ("train", "valid", "test"):
        (tmp_path / name).mkdir()
        WRITERS[format](tmp_path / name)
    layout, _, found = split_data(tmp_path)
    assert layout.format == format
    assert list(layout.splits) == ["train", "val", "test"]
    assert len(found.train) == len(found.val) == len(data_formats.IMAGES)
    assert all("/train/" in str(found.train.path(index)) for index in range(2))
    assert all("/valid/" in str(found.val.path(index)) for index in range(2))
    assert not list(tmp_path.parent.glob("list_*"))


def roboflow_yolo(root, names=True):
    for folder in ("train", "valid"):
        for stem in "ab":
            write_noise(root / folder / f"images/{stem}_{folder}.jpg", 30, 40)
            label = root / folder / f"labels/{stem}_{folder}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.4 0.4\n")
    if names:
        entries = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
        (root / "data.yaml").write_text(f"{entries}nc: 1\nnames: ['pot']\n")
        (root / "README.roboflow.txt").write_text("0 images\n")


def test_yolo_without_a_file_of_splits_is_found_by_its_folders(tmp_path):
    roboflow_yolo(tmp_path, names=False)
    with pytest.raises(DataError, match=r"data\.yaml or classes\.txt, found neither"):
        find_layout(tmp_path)
    (tmp_path / "classes.txt").write_text("pot\n")
    layout, kind, found = split_data(tmp_path)
    assert (layout.format, kind) == ("yolo", "detection")
    assert layout.splits["val"] == SplitConfig(annotations="classes.txt", images="valid/images")
    assert found.train.objects.label_map.names == ("pot",)


def test_splits_of_yolo_whose_folders_are_missing_are_left_out(tmp_path):
    roboflow_yolo(tmp_path)
    layout, _, found = split_data(tmp_path)
    assert list(layout.splits) == ["train", "val"]
    assert any("test/images" in reason and "left out" in reason for reason in layout.reasons)
    assert stems(found.val) == ["a_valid", "b_valid"]


def write_voc(root, objects, images="JPEGImages", annotations="Annotations", suffix=".png"):
    """Writes images with XML files of the objects of each, and images alone where it is None."""
    for stem, content in objects.items():
        write_noise(root / images / f"{stem}{suffix}", 30, 40)
        if content is not None:
            path = root / annotations / f"{stem}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(VOC_XML.format(content))


def ten(name="image"):
    return {f"{name}{index}": voc_object() for index in range(10)}


def test_vocs_lists_are_its_splits(tmp_path):
    write_voc(tmp_path, ten())
    lists = tmp_path / "ImageSets/Main"
    lists.mkdir(parents=True)
    for name, indices in {"train": "0123", "val": "45", "trainval": "012345", "test": "6"}.items():
        (lists / f"{name}.txt").write_text("".join(f"image{index}\n" for index in indices))
    layout, _, found = split_data(tmp_path)
    assert {name: split.split for name, split in layout.splits.items()} == {
        name: name for name in ("train", "val", "test")
    }
    assert (len(found.train), len(found.val)) == (4, 2)


def test_a_list_alone_is_divided_and_test_is_left_for_the_end(tmp_path):
    root = tmp_path / "data"
    write_voc(root, ten())
    lists = root / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("".join(f"image{index}\n" for index in range(8)))
    (lists / "test.txt").write_text("image8\nimage9\n")
    out = tmp_path / "data.yaml"
    done = prepare(root, out)
    data = settings_of(out).data
    listed = Path(data.train.list).read_text().split() + Path(data.val.list).read_text().split()
    assert sorted(listed) == [f"image{index}.png" for index in range(8)]
    assert "--data.val.split=test --data.val.list=null" in done.stderr.replace(
        "--data.val.list=null --data.val.split=test", "--data.val.split=test --data.val.list=null"
    )


def test_the_division_is_seeded(tmp_path):
    root = tmp_path / "data"
    write_voc(root, ten())
    first, second, other = (stems(split_data(root, seed=seed)[2].val) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert len(first) == 2


def test_images_without_annotation_are_left_out_and_named(tmp_path):
    root = tmp_path / "data"
    write_voc(root, ten() | {"empty": ""} | {"extra": None})
    layout, _, found = split_data(root)
    assert any("1 images without annotation" in reason for reason in layout.reasons)
    assert sorted(stems(found.train) + stems(found.val)) == sorted([*ten(), "empty"])


def test_one_image_is_in_both_splits(tmp_path):
    root = tmp_path / "data"
    write_voc(root, {"only": voc_object()})
    _, _, found = split_data(root)
    assert stems(found.train) == ["only", "only"]  # a batch needs two
    assert stems(found.val) == ["only"]
    assert any("nothing about other images" in reason for reason in found.reasons)


def test_an_archive_in_a_folder_of_its_own_name(tmp_path):
    write_voc(tmp_path / "data/data/data", ten())
    (tmp_path / "data/__MACOSX/data").mkdir(parents=True)
    (tmp_path / "data/__MACOSX/data/._image0.png").write_bytes(b"\0")
    assert find_layout(tmp_path / "data").root == tmp_path / "data/data/data"


def test_links_spaces_hidden_files_and_names_of_windows(tmp_path):
    real = tmp_path / "real data"
    write_voc(real, ten("My Photo (1) "), "Bilder und mehr", "XML files", suffix=".JPG")
    (real / "Bilder und mehr/._My Photo (1) 0.JPG").write_bytes(b"\0")
    (real / "Bilder und mehr/Thumbs.db").write_bytes(b"\0")
    link, out = tmp_path / "a link", tmp_path / "my config.yaml"
    link.symlink_to(real)
    done = prepare(link, out)
    settings = settings_of(out)
    assert settings.data.root == str(link)
    assert settings.data.train.images == "Bilder und mehr"
    command = shlex.split(done.stderr.splitlines()[-1].removeprefix("train: "))
    assert command == ["mbv2det", "train", str(out)]


def test_a_folder_that_a_link_leads_to(tmp_path):
    write_voc(tmp_path / "elsewhere", ten(), images="photos")
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "elsewhere/photos")
    shutil.move(tmp_path / "elsewhere/Annotations", root / "xml")
    (root / "xml/again").symlink_to(root)  # a circle
    layout, _, _ = split_data(root)
    assert layout.splits["train"] == SplitConfig(images="images", annotations="xml")


def write_masks(root, masks, mask_name="{}.png", folder="masks"):
    """Writes 20 images and masks; each mask is made by a function of its number."""
    for index in range(20):
        write_noise(root / f"images/{index:02d}.jpg", 30, 40)
        path = root / folder / mask_name.format(f"{index:02d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        masks(index).save(path)


def squares(*values):
    """Returns a mask of stripes of values, or of colours."""
    pixels = np.zeros((30, 40, *np.shape(values)[1:]), np.uint8)
    for position, value in enumerate(values):
        pixels[:, position::5] = value
    return lambda _: Image.fromarray(pixels)


def data_settings(root):
    return find_layout(root).data


def test_masks_of_zero_and_255(tmp_path):
    write_masks(tmp_path, squares(0, 255))
    assert data_settings(tmp_path) == {
        "classes": ("background", "class_255"),
        "mask_values": (0, 255),
        "ignore_index": None,
    }


def test_masks_with_ignored_pixels_and_names(tmp_path):
    write_masks(tmp_path, squares(0, 1, 3, 255))
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, nothing\n1, crop\n2, weed\n")
    assert data_settings(tmp_path) == {"classes": ("nothing", "crop", "weed", "class_3")}


def test_names_that_start_with_the_first_class(tmp_path):
    write_masks(tmp_path, squares(0, 1, 2))
    (tmp_path / "classes.txt").write_text("crop\nweed\n")
    assert data_settings(tmp_path) == {"classes": ("background", "crop", "weed")}


def test_masks_by_colour_with_a_table(tmp_path):
    write_masks(tmp_path, squares((0, 0, 0), (250, 0, 0), (224, 224, 192)), "{}_L.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb\nbackground:0,0,0::\npot:250,0,0::\n")
    assert data_settings(tmp_path) == {
        "classes": ("background", "pot"),
        "mask_colors": ((0, 0, 0), (250, 0, 0)),
        "ignore_color": (224, 224, 192),
        "mask_name": "{stem}_L.png",
    }


COLORS = ((0, 0, 0), (250, 50, 83), (51, 221, 255), (61, 61, 245))


def write_masks_in_folders_of_voc(root, palette):
    """Writes images and masks as CVAT (RGB) and labelme (palette) do, each mask with two labels."""
    write_masks(
        root,
        lambda index: squares(*(palette[label] for label in (0, 1 + index % 3)))(index),
        folder="SegmentationClass",
    )
    (root / "images").rename(root / "JPEGImages")


def test_own_masks_of_cvat_in_folders_of_voc(tmp_path):
    write_masks_in_folders_of_voc(tmp_path, COLORS)
    shutil.copytree(tmp_path / "SegmentationClass", tmp_path / "SegmentationObject")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("00\n01\n")
    rows = [f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in zip(["none", *"abc"], COLORS, strict=True)]
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "".join(rows))
    layout = find_layout(tmp_path)
    assert layout.format == "folder"
    assert layout.data == {"classes": ("none", "a", "b", "c"), "mask_colors": COLORS}
    assert layout.splits["train"].masks == "SegmentationClass"


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("class_names.txt", "_background_\nsky\nroad\ntree\n", ("sky", "road", "tree")),
        ("labels.txt", "__ignore__\n_background_\nsky\nroad\ntree\n", ("sky", "road", "tree")),
        ("README.txt", "our streets\n", ("class_1", "class_2", "class_3")),
    ],
)
def test_own_masks_of_labelme_in_folders_of_voc(tmp_path, file, text, names):
    write_masks_in_folders_of_voc(tmp_path, range(4))
    for index in range(20):
        name = f"SegmentationClassVisualization/{index:02d}.jpg"
        write_noise(tmp_path / name, 30, 40)
    (tmp_path / file).write_text(text)
    layout = find_layout(tmp_path)
    assert layout.format == "folder"
    assert layout.data == {"classes": ("background", *names)}
    assert layout.splits["train"].images == "JPEGImages"


def test_colours_whose_red_is_small_in_some_masks(tmp_path):
    write_masks(tmp_path, lambda index: squares(COLORS[0], COLORS[1 + index % 3])(index))
    layout = find_layout(tmp_path)
    assert set(layout.data["mask_colors"]) == set(COLORS)


def test_masks_in_one_channel(tmp_path):
    def rgb(index):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[:, ::3, 0] = 1
        pixels[:, :, 1] = np.arange(100, 140)
        pixels[:, :, 2] = index
        return Image.fromarray(pixels)

    write_masks(tmp_path, rgb)
    assert data_settings(tmp_path) == {"classes": ("background", "class_1"), "mask_channel": 0}


def test_cityscapes_names(tmp_path):
    for split in ("train", "val"):
        for index in range(4):
            stem = f"aachen_00000{index}"
            write_noise(tmp_path / f"leftImg8bit/{split}/aachen/{stem}_leftImg8bit.png", 30, 40)
            folder = tmp_path / f"gtFine/{split}/aachen"
            folder.mkdir(parents=True, exist_ok=True)
            squares(0, 7, 8)(0).save(folder / f"{stem}_gtFine_labelIds.png")
            squares((0, 0, 0), (9, 8, 200))(0).save(folder / f"{stem}_gtFine_color.png")
    layout, _, found = split_data(tmp_path)
    assert layout.data["image_name"] == "{stem}_leftImg8bit.png"
    assert layout.data["mask_name"] == "{stem}_gtFine_labelIds.png"
    assert layout.data["mask_values"] == (0, 7, 8)
    assert (len(found.train), len(found.val)) == (4, 4)


def test_images_without_a_mask_are_left_out(tmp_path):
    root = tmp_path / "data"
    write_masks(root, squares(0, 1))
    write_noise(root / "images/extra.jpg", 30, 40)
    layout, _, found = split_data(root)
    assert "without annotation are left out, such as images/extra.jpg" in " ".join(layout.reasons)
    assert "extra" not in stems(found.train) + stems(found.val)


def test_nothing_is_found(tmp_path):
    write_noise(tmp_path / "a.png", 30, 40)
    (tmp_path / "notes.docx").write_text("")
    with pytest.raises(DataError, match=r"found 1 \.png, 1 \.docx and none of: coco .*by hand"):
        find_layout(tmp_path)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_text(""), lambda p: p.mkdir()])
def test_a_root_without_images(tmp_path, make):
    make(tmp_path / "root")
    with pytest.raises(DataError, match=r"expected (the folder of a data set|images), found"):
        find_layout(tmp_path / "root")


def test_two_formats_are_refused_until_one_is_chosen(tmp_path):
    data_formats.labelme(tmp_path)
    data_formats.coco(tmp_path)
    with pytest.raises(DataError, match=r"found coco .* and labelme .*--format coco or --format"):
        find_layout(tmp_path)
    assert find_layout(tmp_path, "labelme").format == "labelme"


def test_two_data_sets_are_refused(tmp_path):
    for name in ("first", "second"):
        write_voc(tmp_path / name, ten())
    with pytest.raises(DataError, match=r"first/JPEGImages .* second/JPEGImages .* as ROOT"):
        find_layout(tmp_path)


def test_two_files_of_one_split_are_refused(tmp_path):
    data_formats.coco(tmp_path)
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(DataError, match=r"one COCO file for train, found 2: a\.json, b\.json"):
        find_layout(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "instances_train.json")
    assert find_layout(tmp_path).splits["train"].annotations == "instances_train.json"


def test_the_configuration_is_written_with_pictures_and_says_why(tmp_path):
    root, out = tmp_path / "my data", tmp_path / "out/mine.yaml"
    data_formats.coco(root)
    done = prepare(root, out, "--task", "detection", "--weights", "file.pth")
    text, settings = out.read_text(), settings_of(out)
    assert "a.json has images, annotations and categories" in done.stderr
    assert "max_epochs: 200" in text
    assert "# 1 training images make" not in text  # listed twice
    assert settings.tasks == ("detection",)
    assert settings.backbone.weights == "file.pth"
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith("#"))
    for name in ("mine_train_01.jpg", "mine_val_01.jpg"):
        with Image.open(out.parent / name) as sheet:
            assert sheet.width > 1000
    assert sorted(path.name for path in root.iterdir()) == ["a.json", "images"]


def test_an_existing_configuration_is_kept(tmp_path):
    root, out = tmp_path / "data", tmp_path / "data.yaml"
    write_voc(root, ten())
    out.write_text("mine")
    done = run_command("prepare_data", root, "--out", out, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {out}: expected no such file yet, found one; --force overwrites it\n"
    )
    assert out.read_text() == "mine"
    prepare(root, out, "--force")
    assert settings_of(out).data.format == "voc"


def test_nothing_is_written_among_the_data(tmp_path, monkeypatch):
    write_voc(tmp_path / "data", ten())
    monkeypatch.chdir(tmp_path / "data")
    done = run_command("prepare_data", ".", check=False)
    assert done.returncode == 2
    assert "--out: expected a place outside of" in done.stderr
    assert str(tmp_path / "data.yaml") in done.stderr


def test_a_place_that_cannot_be_written_to(tmp_path):
    write_voc(tmp_path / "data", ten())
    (tmp_path / "file").write_text("")
    done = run_command(
        "prepare_data", tmp_path / "data", "--out", tmp_path / "file/x.yaml", check=False
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert done.stderr.count("error:") == 1


def test_files_that_cannot_be_used_are_left_out_of_training(tmp_path):
    root, out = tmp_path / "data", tmp_path / "data.yaml"
    write_voc(root, ten())
    (root / "JPEGImages/image3.png").write_text("no image")
    done = prepare(root, out)
    assert settings_of(out).data.on_error == "skip"
    assert "image3.png" in done.stderr


def test_the_default_name_is_that_of_the_folder(tmp_path, monkeypatch):
    write_voc(tmp_path / "my.data set", ten())
    monkeypatch.chdir(tmp_path)
    run_command("prepare_data", "my.data set")
    assert settings_of(tmp_path / "my_data_set.yaml").data.root == str(tmp_path / "my.data set")


TRAINED = ["coco", "yolo_boxes", "cvat_masks", "voc_boxes", "folder", "color_folder", "labelme"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", TRAINED)
def test_the_written_configuration_trains(tmp_path, name):
    (tmp_path / "data").mkdir()
    ALL[name](tmp_path / "data")
    out = tmp_path / "mine.yaml"
    prepare(tmp_path / "data", out)
    done = run_command(
        "train",
        out,
        "--trainer.max_steps=1",
        "--trainer.accelerator=cpu",
        "--data.num_workers=0",
        f"--trainer.default_root_dir={tmp_path / 'runs'}",
    )
    assert (tmp_path / "runs/mine/1/best.safetensors").is_file(), done.stderr


REAL = {
    "bccd": ("voc", "detection", (205, 87)),
    "kangaroo": ("voc", "detection", (131, 33)),
    "coco": ("coco", "joint", (178, 183)),
    "voc21": ("voc", "segmentation", (178, 155)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_is_found(tmp_path, real_data, name):
    format, kind, counts = REAL[name]
    layout = find_layout(real_data(name))
    found_kind, _ = choose_kind(layout, None)
    assert (layout.format, found_kind) == (format, kind)
    found = make_splits(layout, kind, 0, write_lists(tmp_path))
    assert (len(found.train), len(found.val)) == counts


SOURCES = {
    "bccd": (DataConfig(format="voc"), SplitConfig(split="train"), False),
    "kangaroo": (
        DataConfig(format="voc"),
        SplitConfig(images="images", annotations="annots"),
        False,
    ),
    "coco": (
        DataConfig(format="coco"),
        SplitConfig(annotations="annotations/instances_train2017_voc20.json", images="train2017"),
        True,
    ),
}


@pytest.mark.parametrize("writer", ALL)
@pytest.mark.parametrize("name", SOURCES)
def test_real_data_in_another_format_is_found(tmp_path, real_data, name, writer):
    data, split, masks = SOURCES[name]
    data = DataConfig(root=str(real_data(name)), format=data.format)
    if not masks and writer in (*FOLDERS, "cvat_masks"):
        pytest.skip(f"needs outlines: {name} has boxes alone")
    content = RealContent(
        splits.read_split(data, split, "data.train", boxes=True, masks=masks), most=20
    )
    root = tmp_path / "data"
    root.mkdir()
    written, _ = ALL[writer](root, content)
    layout, kind, found = split_data(root)
    assert layout.format == written["format"]
    expected = "segmentation" if writer in FOLDERS else "joint" if masks else "detection"
    assert kind == ("detection" if writer in BOXES_ALONE else expected)
    assert sorted(stems(found.train) + stems(found.val)) == sorted(content.images)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        run_main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("coco", "labelme", "--force", "contact sheets"))


def run_main(arguments):
    from mbv2det.cli.prepare_data import main

    main(arguments, prog="mbv2det prepare_data")
