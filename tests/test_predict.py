import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import ROOT, run_command

import mbv2det
from mbv2det.build import build_model
from mbv2det.deploy.pictures import unique_names
from mbv2det.deploy.predict_files import select_classes
from mbv2det.deploy.predictor import Predictor
from mbv2det.deploy.video import VideoFile, VideoSource
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import IGNORE_INDEX, Classification, Detections, SegmentationMap
from mbv2det.tasks.classification import ClassificationTask
from mbv2det.tasks.detection import DetectionTask
from mbv2det.tasks.segmentation import SegmentationTask
from mbv2det.tasks.task import Prediction
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import save_weights

LABELS = LabelMap(("cat", "dog"), (7, 90))
MASK_LABELS = LabelMap.of_masks(("background", "cat", "dog"))


def write_weights(path, heads, label_maps, stride=32):
    torch.manual_seed(0)
    backbone = BackboneConfig(width_mult=0.35, output_stride=stride)
    info = WeightsInfo(ModelConfig(backbone, heads), PreprocessSpec((96, 96)), label_maps)
    model = build_model(info.model, info.preprocess, info.label_maps)
    save_weights(path, model.state_dict(), info)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "detector.safetensors"
    return write_weights(path, {"detection": SSDLiteConfig()}, {"detection": LABELS})


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "segmenter.safetensors"
    heads = {"segmentation": DeepLabV3Config()}
    return write_weights(path, heads, {"segmentation": MASK_LABELS}, stride=16)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (40, 50 + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def clip(tmp_path):
    video = VideoFile(tmp_path / "clip.mp4", 10.0, (48, 64))
    for level in (40, 120, 200):
        video.add(Image.new("RGB", (64, 48), (level, 0, 0)))
    video.close()
    return tmp_path / "clip.mp4"


def predict(weights, out, *arguments, code=0):
    done = run_command("predict", "--weights", weights, "--out", out, *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def records(out):
    return json.loads((out / "results.json").read_text())


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_equal_names_from_two_folders_do_not_overwrite_each_other(tmp_path):
    assert unique_names([tmp_path / "a/1.jpg", tmp_path / "b/1.jpg"]) == ["1", "1_2"]


def test_predict_names_unreadable_files_and_continues(weights, tmp_path):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "12.png")
    Image.new("L", (40, 50)).save(tmp_path / "grey.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    stderr = predict(weights, tmp_path / "out", tmp_path, code=1)
    assert "broken.jpg: expected an image file, got a file of another kind" in stderr
    assert "2 images" in stderr
    assert "1 inputs could not be read" in stderr
    results = records(tmp_path / "out")
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
    stderr = predict(weights, tmp_path, tmp_path / "broken.jpg", code=2)
    assert "none of the 1 inputs is a readable image" in stderr


def test_an_enormous_or_truncated_image_is_left_out_in_a_line(
    weights, images, tmp_path, monkeypatch
):
    Image.new("L", (300, 200)).save(images / "enormous.png")
    (images / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 25_000)  # the limit is twice that
    stderr = predict(weights, tmp_path / "out", images, "--formats", "json", code=1)
    assert re.search(r"left out: .*enormous\.png: expected at most \d+ million pixels", stderr)
    assert re.search(r"left out: .*cut\.jpg: ", stderr)
    assert len({record["file_name"] for record in records(tmp_path / "out")}) == 6


def test_batches_give_what_single_images_give(weights, images, tmp_path):
    predict(weights, tmp_path / "out", images, "--batch-size", 4)
    predictor = mbv2det.load(weights)
    for file in sorted(images.iterdir()):
        expected = predictor.predict_file(file).detection
        boxes = [r["bbox"] for r in records(tmp_path / "out") if r["file_name"] == file.name]
        corners = np.array(boxes)
        corners[:, 2:] += corners[:, :2]
        # Rounded to two digits twice, beside float32 in another order.
        np.testing.assert_allclose(corners, expected.boxes.numpy(), atol=0.03)


def test_an_interrupt_leaves_valid_files_of_all_that_was_predicted(
    weights, images, tmp_path, monkeypatch
):
    original, calls = Predictor.__call__, []

    def interrupted(self, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(Predictor, "__call__", interrupted)
    formats = ("--formats", "pictures,json,csv,yolo")
    stderr = predict(weights, tmp_path, images, "--batch-size", 2, *formats, code=130)
    assert "interrupted: the results of 4 images are complete" in stderr
    assert {record["image_id"] for record in records(tmp_path)} == {0, 1, 2, 3}
    for folder, suffix in (("pictures", "jpg"), ("yolo/labels", "txt")):
        assert files(tmp_path / folder) == {f"{n}.{suffix}" for n in range(4)}


def test_a_video_becomes_a_video_and_records_with_frames(weights, clip, tmp_path):
    predict(weights, tmp_path / "out", clip, "--batch-size", 2, "--formats", "pictures,json,yolo")
    assert {r["frame"] for r in records(tmp_path / "out")} == {0, 1, 2}
    assert {r["file_name"] for r in records(tmp_path / "out")} == {"clip.mp4"}
    video = VideoSource(str(tmp_path / "out/videos/clip.mp4"), "", "")
    assert [image.info.size for image in video] == [(48, 64)] * 3
    assert "yolo/labels/clip.mp4/000002.txt" in files(tmp_path / "out")
    assert not (tmp_path / "out/pictures").exists()


def test_a_video_of_labels_has_space_for_the_legend(segmenter, clip, tmp_path):
    predict(segmenter, tmp_path / "out", clip)
    (size,) = {i.info.size for i in VideoSource(str(tmp_path / "out/videos/clip.mp4"), "", "")}
    assert size == (48 + 2 * (12 + 2 * 3), 64)  # two rows of the smallest text with its margins
    assert f"masks/clip.mp4/{2:06d}.png" in files(tmp_path / "out")


def test_formats_are_those_asked_for(weights, images, tmp_path):
    predict(weights, tmp_path / "out", images / "0.png", "--formats", "csv,yolo")
    expected = {"results.csv", "yolo/classes.txt", "yolo/labels/0.txt"}
    assert files(tmp_path / "out") == expected


def test_the_network_input_has_the_size_asked_for(segmenter, images, tmp_path, monkeypatch):
    sizes = []
    original = Predictor.__call__

    def seen(self, batch):
        sizes.append(self.preprocessor.spec.size)
        return original(self, batch)

    monkeypatch.setattr(Predictor, "__call__", seen)
    predict(segmenter, tmp_path / "out", images / "0.png", "--image-size", "64x80")
    predict(segmenter, tmp_path / "out", images / "0.png", "--image-size", "64")
    assert sizes == [(64, 80), (64, 64)]


def test_only_the_classes_asked_for_are_written(weights, images, tmp_path):
    predict(weights, tmp_path / "all", images)
    predict(weights, tmp_path / "dogs", images, "--classes", "dog")
    expected = [r for r in records(tmp_path / "all") if r["category_name"] == "dog"]
    assert records(tmp_path / "dogs") == expected
    assert 0 < len(expected) < len(records(tmp_path / "all"))


def test_classes_are_selected_in_every_task():
    tasks = [
        DetectionTask(SSDLiteConfig(), LABELS, EvalConfig()),
        SegmentationTask(DeepLabV3Config(), MASK_LABELS, EvalConfig()),
        ClassificationTask(ClassifierConfig(), LABELS, EvalConfig()),
    ]
    prediction = Prediction(
        Detections(torch.zeros(3, 4), torch.ones(3), torch.tensor([0, 1, 0])),
        SegmentationMap(torch.tensor([[0, 1, 2, IGNORE_INDEX]], dtype=torch.uint8)),
        Classification(torch.tensor([0.7, 0.3]), torch.tensor([0, 1])),
    )
    selected = select_classes(prediction, tasks, ["dog"])
    assert selected.detection.labels.tolist() == [1]
    assert selected.segmentation.labels.tolist() == [[0, 0, 2, 0]]
    assert selected.classification.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--classes", "dgo"), "--classes: .*2 classes .*got 'dgo'; did you mean 'dog'"),
        (("--formats", "cvs"), "--formats: .*pictures, json, csv, yolo.*'cvs'; did you mean 'csv'"),
        (("--formats", "masks"), "--formats: .*which these weights can write, got 'masks'"),
        (("--image-size", "0"), "--image-size: expected 320 or HEIGHTxWIDTH in pixels, got 0"),
        (("--batch-size", "0"), "--batch-size: expected at least 1, got 0"),
        (("--min-score", "30"), "--min-score: expected a score from 0 to 1, got 30"),
        (("--tiles", "2y3"), "--tiles: expected ROWSxCOLUMNS"),
        (("--tile-overlap", "0.1"), "--tile-overlap: expected --tiles beside it"),
    ],
)  # fmt: skip
def test_wrong_options_are_errors_of_one_line(weights, images, tmp_path, arguments, message):
    stderr = predict(weights, tmp_path / "out", images, *arguments, code=2)
    assert re.search(f"^error: {message}", stderr)
    assert stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_an_error(weights, images):
    stderr = predict(weights, images / "0.png/out", images, code=2)
    assert "--out: expected a folder to write to" in stderr


def test_tiles_need_a_detector(segmenter, images, tmp_path):
    stderr = predict(segmenter, tmp_path / "out", images, "--tiles", "2x2", code=2)
    assert "--tiles: expected weights with a head for detection" in stderr


def test_tiles_are_merged_in_the_frame_of_the_image(weights, images, tmp_path):
    pytest.importorskip("supervision", reason="needs the extra supervision")
    predict(weights, tmp_path / "out", images / "0.png", "--tiles", "2x3", "--formats", "json")
    boxes = np.array([r["bbox"] for r in records(tmp_path / "out")])
    assert len(boxes)
    assert (boxes[:, :2] >= 0).all()
    # Rounded to two digits twice.
    assert (boxes[:, :2] + boxes[:, 2:] <= np.array([50, 40]) + 0.02).all()


def test_help_teaches_by_examples():
    done = run_command("predict", "--help")
    for text in ("clip.mp4", "camera:0", "--tiles 3x4", "results.json", "exit code is then 1"):
        assert text in done.stdout


def readme_code(section):
    """Python of a section of the page on deployment."""
    text = (ROOT / "mbv2det/deploy/README.md").read_text()
    body = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return "".join(re.findall(r"```python\n(.*?)```", body, re.DOTALL))


@pytest.mark.parametrize(
    ("section", "needs"),
    [
        ("Use it from your own code", []),
        ("Small objects by tiles", ["supervision"]),
        ("Use it with supervision", ["supervision"]),
        ("Track", ["supervision", "trackers"]),
        ("Use it with sahi", ["sahi"]),
    ],
)
def test_examples_of_the_readme_run(section, needs, weights, clip, images, tmp_path, monkeypatch):
    for library in needs:
        pytest.importorskip(library, reason=f"needs {library}, an extra")
    monkeypatch.chdir(tmp_path)
    Path("best.safetensors").write_bytes(weights.read_bytes())
    Image.open(images / "0.png").convert("RGB").resize((700, 500)).save("photo.jpg")
    exec(compile(readme_code(section), section, "exec"), {})
