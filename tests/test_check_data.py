"""The command `check_data`: exit codes, files, and what it finds in whole data sets."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image
from runs import DETECTION, SEGMENTATION, run_command, write_config

FOLDERS = {"images": "JPEGImages", "annotations": "Annotations", "list": "list.txt"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("shapes"), heads=f"{DETECTION}, {SEGMENTATION}")


def check(config, *arguments, out):
    done = run_command("check_data", config, f"--json={out}", *arguments, check=False)
    document = json.loads(Path(out).read_text())
    return done, [f for f in document["findings"] if f["fault"]], document["findings"]


def test_the_embedded_data_has_no_fault_and_measures_one(config, tmp_path):
    done, faults, findings = check(config, out=tmp_path / "found.json")
    # With so few images a class may be missing.
    assert {f["kind"] for f in faults} <= {"classes without objects"}
    assert done.returncode == int(bool(faults))
    measured = [f["message"] for f in findings if f["kind"] == "ground truth through the evaluator"]
    assert measured == [
        "AP 1 on 8 of 8 images",
        "mIoU 1 on 8 of 8 images",
        "AP 1 on 5 of 5 images",
        "mIoU 1 on 5 of 5 images",
    ]


@pytest.fixture
def damaged(tmp_path):
    """Returns a configuration of a data set with several faults."""
    config = write_config(tmp_path)
    root = tmp_path / "shapes"
    (root / "train/000002.jpg").write_bytes(b"<html>")
    (root / "train/000005.jpg").write_bytes(b"")
    (root / "val/000001.jpg").write_bytes((root / "train/000001.jpg").read_bytes())
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] = 0
    file.write_text(json.dumps(content))
    return config


def test_all_faults_are_found_in_one_pass(damaged, tmp_path):
    done, faults, _ = check(damaged, out=tmp_path / "found.json")
    assert done.returncode == 1
    found = {(f["kind"], Path(f["file"]).name) for f in faults}
    assert found >= {
        ("images that cannot be read", "000002.jpg"),
        ("images that cannot be read", "000005.jpg"),
        ("the same image in train and val", "000001.jpg"),
        ("boxes of no width or height", "000001.jpg"),
        ("ground truth that does not measure 1.0", "instances_train.json"),
    }
    assert "train/000005.jpg: expected an image" in done.stdout
    assert f"{len(faults)} faults" in done.stderr


def test_a_split_that_cannot_be_read_is_a_fault_and_the_other_one_is_checked(damaged, tmp_path):
    (tmp_path / "shapes/annotations/instances_val.json").write_text("{")
    done, faults, _ = check(damaged, out=tmp_path / "found.json")
    assert done.returncode == 1
    assert {f["split"] for f in faults if f["kind"] == "annotation that cannot be read"} == {"val"}
    assert {f["split"] for f in faults if f["kind"] == "images that cannot be read"} == {"train"}


def test_wrong_settings_are_an_error(config):
    done = run_command("check_data", config, "--data.root=nowhere", check=False)
    assert done.returncode == 2
    assert "data.root: expected a folder, found none at nowhere" in done.stderr


def test_real_blood_cells_have_two_boxes_of_no_width(real_data, tmp_path):
    root = real_data("bccd")
    settings = (f"--data.root={root}", "--data.train.split=train", "--data.val.split=val")
    done, faults, _ = check("ssdlite_voc", *settings, out=tmp_path / "found.json")
    assert done.returncode == 1
    assert sorted(f["file"] for f in faults) == ["BloodImage_00338.xml", "BloodImage_00343.xml"]
    assert all(f["kind"].startswith("degenerate boxes") for f in faults)


def test_real_kangaroos_have_one_truncated_image(real_data, tmp_path):
    root = real_data("kangaroo")
    stems = sorted(path.stem for path in (root / "annots").glob("*.xml"))
    lists = {"train": stems[40:], "val": stems[:40]}
    folders = []
    for split, names in lists.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
        folders += [f"--data.{split}.images=images", f"--data.{split}.annotations=annots"]
        folders += [f"--data.{split}.list={tmp_path / split}.txt"]
    done, faults, _ = check("ssdlite_voc", f"--data.root={root}", *folders, out=tmp_path / "a.json")
    assert done.returncode == 1
    assert [(f["kind"], Path(f["file"]).name) for f in faults] == [
        ("truncated images", "00090.jpg")
    ]


def test_pages_of_pictures_show_faulty_images_first(damaged, tmp_path):
    check(damaged, f"--pictures={tmp_path / 'pages'}", out=tmp_path / "found.json")
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == [
        "train_01.jpg",
        "val_01.jpg",
    ]
    with Image.open(tmp_path / "pages/train_01.jpg") as page:
        # Two images that cannot be read are grey fields; the third has a faulty box.
        cells = [page.crop((x, 60, x + 100, 160)) for x in (100, 428, 756)]
    extrema = [cell.convert("L").getextrema() for cell in cells]
    assert [high - low < 8 for low, high in extrema] == [True, True, False]


def test_a_corrected_copy_has_no_fault_and_the_original_is_untouched(damaged, tmp_path):
    root = tmp_path / "shapes"
    (root / "val/000001.jpg").write_bytes(b"")
    (root / "val/000003.jpg").write_bytes((root / "val/000003.jpg").read_bytes()[:-400])
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    out = tmp_path / "fixed"
    done, _, _ = check(damaged, f"--fix={out}", out=tmp_path / "found.json")
    assert done.returncode == 1
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before
    changes = (out / "changes.txt").read_text()
    for part in ("000002.jpg: left out", "000005.jpg: left out", "no width or height", "truncated"):
        assert part in changes
    (command,) = [
        line for line in done.stderr.splitlines() if line.startswith("mbv2det check_data")
    ]
    settings = [word for word in command.split() if word.startswith("--")]
    again, faults, findings = check(damaged, *settings, out=tmp_path / "again.json")
    assert {f["kind"] for f in faults} <= {"classes without objects"}
    assert again.returncode == int(bool(faults))
    assert "AP 1 on 6 of 6 images" in [f["message"] for f in findings]


def test_a_corrected_copy_of_masks_has_the_same_labels(tmp_path):
    config = write_config(tmp_path, heads=SEGMENTATION)
    (tmp_path / "shapes/train/000002.jpg").write_bytes(b"<html>")
    out = tmp_path / "fixed"
    done, _, _ = check(config, f"--fix={out}", out=tmp_path / "found.json")
    (command,) = [
        line for line in done.stderr.splitlines() if line.startswith("mbv2det check_data")
    ]
    settings = [word for word in shlex.split(command) if word.startswith("--")]
    settings += [f"--data.{split}.annotations=null" for split in ("train", "val")]
    _, faults, findings = check(config, *settings, out=tmp_path / "again.json")
    assert {f["kind"] for f in faults} <= {"classes without objects"}
    assert "mIoU 1 on 7 of 7 images" in [f["message"] for f in findings]


def test_a_corrected_copy_merges_spellings_of_a_class(make_voc, tmp_path):
    objects = {
        "a": make_voc.object("RBC") + make_voc.object("rbc", (1, 2, 12, 13)),
        "b": make_voc.object("RBC", (30, 2, 44, 20)),
    }
    for split in ("train", "val"):
        make_voc(tmp_path / split, objects, ["a", "b"])
    settings = [f"--data.root={tmp_path}"]
    for split in ("train", "val"):
        settings += [f"--data.{split}.{key}={split}/{folder}" for key, folder in FOLDERS.items()]
    out = tmp_path / "fixed"
    check("ssdlite_voc", *settings, f"--fix={out}", out=tmp_path / "found.json")
    content = json.loads((out / "train.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "RBC"}]
    assert [o["bbox"] for o in content["annotations"]] == [
        [4, 5, 16, 13],
        [0, 1, 12, 12],
        [29, 1, 11, 19],  # clipped to a width of 40
    ]
    assert "class 'rbc' renamed to 'RBC'" in (out / "changes.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix={folder}"], "--fix: expected a new folder"),
        (["--fix={folder}/new"], "--fix: expected boxes or masks, got both in train"),
    ],
)
def test_a_corrected_copy_that_cannot_be_made_is_an_error(config, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    done = run_command("check_data", config, *filled, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_boxes_that_fit_the_file_are_no_fault_where_its_annotated_size_is_wrong(tmp_path):
    config = write_config(tmp_path)
    file = tmp_path / "shapes/annotations/instances_train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["height"], image["width"] = image["height"] // 2, image["width"] // 2
    file.write_text(json.dumps(content))
    _, faults, _ = check(config, out=tmp_path / "found.json")
    of_train = {f["kind"] for f in faults if f["split"] == "train"}
    assert of_train - {"classes without objects"} == {"images of another size than annotated"}
