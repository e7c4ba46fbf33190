"""Every error that a user can cause ends in one line and exit code 2."""

import json

import pytest
from PIL import Image
from runs import run_command, run_tool, write_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("errors"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.rot=x"], "did you mean 'data.root'?"),
        (["--optim.lr=fast"], "optim.lr"),
        (["--backbone.output_stride=7"], "expected one of 8, 16, 32, got 7"),
        (["--trainer.max_epoch=1"], "did you mean 'trainer.max_epochs'?"),
        (["--data.root=nowhere"], "data.root: expected a folder, found none at nowhere"),
        (["--data.train.images=trane"], "did you mean"),
        (["--data.train.annotations=a.json"], "expected a COCO annotation file, found none"),
        (["--data.classes=[ellipse,squid]"], "got 'squid'"),
        (["--backbone.weights=missing.pth"], "missing.pth: expected a file"),
        (
            ["--optim.freeze_norm=all"],
            "optim.freeze_norm: expected none without weights or backbone.weights",
        ),
        (
            ["--backbone.freeze=stages"],
            "backbone.freeze: expected none without weights or backbone.weights, got stages",
        ),
        (
            ["--heads.detection=null"],
            "heads: expected detection or segmentation, or both, got none",
        ),
        (["--data.batch_size=64"], "data.batch_size: expected at most the 8 training images"),
        (["--resume=last"], "--resume last: expected a run with a checkpoint"),
        (["--trainer.accelerator=quantum"], "quantum"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(config, arguments, expected):
    done = run_command("train", config, *arguments, check=False)
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in done.stderr


def test_a_typo_in_the_file_names_key_and_nearest(config, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(config.read_text().replace("batch_size", "batchsize"))
    done = run_command("train", broken, check=False)
    assert done.returncode == 2
    assert "batchsize" in done.stderr
    assert "did you mean" in done.stderr
    assert str(broken) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_configuration_is_named(tmp_path):
    done = run_command("train", tmp_path / "no.yaml", check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no.yaml" in done.stderr


def test_eval_refuses_a_file_without_weights(config, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not tensors")
    done = run_command("eval", config, "--weights", foreign, check=False)
    assert done.returncode == 2
    assert "expected a safetensors file, got a damaged one" in done.stderr


def test_a_truncated_image_is_named_and_trained_on(tmp_path):
    config = write_config(tmp_path, num_train=4)
    image = tmp_path / "shapes/train/000002.jpg"
    image.write_bytes(image.read_bytes()[:-2000])
    done = run_tool("train", config, "--trainer.max_epochs=1")
    assert done.stderr.count("000002.jpg: truncated") == 1


def test_an_undecodable_image_ends_in_one_line_even_from_a_worker(tmp_path):
    config = write_config(tmp_path, num_train=4)
    path = tmp_path / "shapes/train/000002.jpg"
    with Image.open(path) as image:
        image.save(path, format="png")
    content = path.read_bytes()
    # The header, which is read before training, is intact.
    path.write_bytes(content[:60] + bytes(200) + content[260:])
    done = run_command("train", config, "--data.num_workers=1", check=False)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {path}: cannot be decoded")


def test_bad_boxes_are_counted_and_do_not_reach_the_loss(tmp_path):
    config = write_config(tmp_path, num_train=4)
    path = tmp_path / "shapes/annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = 0
    content["annotations"][1]["bbox"] = [5000, 5000, 10, 10]
    path.write_text(json.dumps(content))
    done = run_command("train", config, "--trainer.max_epochs=1")
    assert "train: 1 degenerate boxes" in done.stderr
    assert "train: 1 boxes wholly outside" in done.stderr
    assert done.stderr.count("000001.jpg") >= 2


def test_a_data_set_without_any_object_is_not_trained_on(tmp_path):
    config = write_config(tmp_path, num_train=4)
    path = tmp_path / "shapes/annotations/instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    done = run_command("train", config, "--trainer.max_epochs=1", check=False)
    assert done.returncode == 2
    assert f"{path}: expected a split to learn detection from; it has no objects" in done.stderr


def test_an_empty_image_list_is_refused(tmp_path):
    config = write_config(tmp_path, num_train=4)
    path = tmp_path / "shapes/annotations/instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [], "annotations": []}))
    done = run_command("train", config, check=False)
    assert done.returncode == 2
    assert "expected at least one image, got none" in done.stderr


@pytest.mark.parametrize("name", ["train", "eval", "predict"])
def test_help_explains_every_command(name):
    assert "usage:" in run_command(name, "--help").stdout
