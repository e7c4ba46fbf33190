import json

import pytest
import torch
from PIL import Image
from runs import run_command

from mbv2det.build import build_model
from mbv2det.deploy.pictures import unique_names
from mbv2det.deploy.predict_files import image_files
from mbv2det.errors import ConfigError
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import Detections
from mbv2det.tasks.detection import coco_records
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

FOUND = Detections(
    torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 5.0, 5.0]]),
    torch.tensor([0.9, 0.1]),
    torch.tensor([1, 0]),
)
LABELS = LabelMap(("cat", "dog"), (7, 90))


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    info = WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=0.35), {"detection": SSDLiteConfig()}),
        PreprocessSpec((96, 96)),
        {"detection": LABELS},
    )
    model = build_model(info.model, info.preprocess, info.label_maps)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), info)
    return tmp_path / "w.safetensors"


def test_results_are_xywh_with_the_ids_of_the_data_set():
    first, second = coco_records("000000000139", FOUND, LABELS)
    assert first == {
        "image_id": 139, "category_id": 90, "bbox": [10.0, 20.0, 40.0, 20.0], "score": 0.9
    }  # fmt: skip
    assert second["category_id"] == 7
    assert coco_records("2008_000001", FOUND, LABELS)[0]["image_id"] == "2008_000001"


def test_inputs_are_files_and_folders_to_any_depth(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("x.jpg", "a/y.PNG", "a/b/z.bmp", "a/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    files = image_files([tmp_path / "x.jpg", tmp_path / "a"])
    assert [p.name for p in files] == ["x.jpg", "z.bmp", "y.PNG"]
    with pytest.raises(ConfigError, match=r"found none at .*nowhere"):
        image_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no images"):
        image_files([tmp_path / "empty"])


def test_equal_names_from_two_folders_do_not_overwrite_each_other(tmp_path):
    assert unique_names([tmp_path / "a/1.jpg", tmp_path / "b/1.jpg"]) == ["1", "1_2"]


def test_predict_names_unreadable_files_and_continues(weights, tmp_path):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "12.png")
    Image.new("L", (40, 50)).save(tmp_path / "grey.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = run_command("predict", "--weights", weights, tmp_path, "--out", tmp_path / "out")
    assert "broken.jpg: expected an image, got a file of another kind" in done.stderr
    assert "2 images" in done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {r["image_id"] for r in results} == {12, "grey"}
    for result in results:
        x, y, width, height = result["bbox"]
        limit = (50, 40) if result["image_id"] == 12 else (40, 50)
        assert x >= 0
        assert y >= 0
        assert x + width <= limit[0] + 0.02  # rounded to two digits twice
        assert y + height <= limit[1] + 0.02


def test_predict_fails_if_no_image_can_be_read(weights, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = run_command(
        "predict", "--weights", weights, tmp_path / "broken.jpg", "--out", tmp_path, check=False
    )
    assert done.returncode == 2
    assert "none of the 1 inputs is a readable image" in done.stderr
