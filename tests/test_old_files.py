"""Files that an earlier version wrote: they load, predict the same numbers, and resume."""

import csv
import json
import lzma
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch
from PIL import Image
from runs import run_command

import mbv2det
from mbv2det.data.shapes import ShapesSpec, make_shapes
from mbv2det.weights.share_file import load_origin, load_weights

pytestmark = pytest.mark.usefixtures("one_thread", "resized_by_pil")

FILES = Path(__file__).parent / "data/format_2"
RECORDED = json.loads((FILES / "recorded.json").read_text())
# The same float32 operations, which other versions and processors may add up in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def resized_by_pil(monkeypatch):
    """Resizes images as the earlier version did, so that small tolerances hold."""

    def resize(image, size):
        return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))

    monkeypatch.setattr("mbv2det.preprocess.resize_image", resize)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Returns the checkpoint, in the folder of a run as a training leaves it."""
    run = tmp_path_factory.mktemp("old") / "runs/tiny/1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    copyfile(FILES / "run.safetensors", run / "best.safetensors")
    path = run / "checkpoints/last.ckpt"
    path.write_bytes(lzma.decompress((FILES / "run.ckpt.xz").read_bytes()))
    return path


def file_of(name, checkpoint):
    return checkpoint if name == "run.ckpt" else FILES / f"{name}.safetensors"


every_file = pytest.mark.parametrize("name", ["share_file", "classifier", "run", "run.ckpt"])


@every_file
def test_an_old_header_loads(name, checkpoint):
    recorded = RECORDED[name]
    _, info = load_weights(file_of(name, checkpoint))
    label_maps = {task: (m.names, m.ids) for task, m in info.label_maps.items()}
    assert label_maps == {
        task: (tuple(m["names"]), tuple(m["ids"])) for task, m in recorded["label_maps"].items()
    }
    assert info.command == recorded["command"]
    assert recorded["metrics"].items() <= info.metrics.items()
    assert info.preprocess.size == (64, 64)


@every_file
def test_old_weights_predict_the_same_numbers(name, checkpoint):
    recorded = RECORDED[name]
    predictor = mbv2det.load(file_of(name, checkpoint))
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    (predictions,) = predictor([picture])
    predicted = {name for name, part in vars(predictions).items() if part is not None}
    assert predicted == recorded.keys() & {"detection", "segmentation", "classification"}
    for task, values in computed(predictor, predictions).items():
        for key, value in values.items():
            value, expected = torch.as_tensor(value), torch.as_tensor(recorded[task][key])
            torch.testing.assert_close(value, expected, **CLOSE)


def computed(predictor, predictions):
    """Returns the recorded quantities as computed now."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), np.uint8)
    with torch.no_grad():
        outputs = predictor.model(torch.from_numpy(pixels))
    values = {}
    if predictions.detection is not None:
        detections, raw = predictions.detection, outputs["detection"]
        values["detection"] = {
            "count": len(detections.boxes),
            "boxes": detections.boxes[:3],
            "scores": detections.scores[:3],
            "labels": detections.labels[:3],
            "logits": raw.logits[0, ::24],
            "deltas": raw.deltas[0, ::24],
        }
    if predictions.segmentation is not None:
        labels = predictions.segmentation.labels.flatten().long()
        values["segmentation"] = {
            "pixels_of_labels": torch.bincount(labels, minlength=3),
            "logits": outputs["segmentation"].logits[0, :, ::2, 1],
        }
    if predictions.classification is not None:
        values["classification"] = {
            "labels": predictions.classification.labels,
            "scores": predictions.classification.scores,
            "logits": outputs["classification"][0],
        }
    return values


@pytest.mark.parametrize("name", ["share_file", "classifier"])
def test_old_weights_fill_a_backbone(name):
    backbone = mbv2det.load_backbone(FILES / f"{name}.safetensors")
    state, _ = load_weights(FILES / f"{name}.safetensors")
    filled = backbone.state_dict()
    assert all(
        torch.equal(filled[key.removeprefix("backbone.")], tensor)
        for key, tensor in state.items()
        if key.startswith("backbone.")
    )
    assert (backbone.classifier is not None) == (name == "classifier")


def test_an_old_checkpoint_has_the_origin_of_its_tensors(checkpoint):
    loaded, transferred = load_origin(checkpoint)
    assert len(loaded) == RECORDED["run.ckpt"]["origin"]["loaded"]
    assert len(transferred) == RECORDED["run.ckpt"]["origin"]["kept"]


def test_an_old_run_resumes_with_similar_results(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the data lie in `shapes` here
    spec = ShapesSpec(num_train=8, num_val=4, size=(96, 128))
    make_shapes(tmp_path / "shapes", spec, show_progress=False)
    run_command(
        "train", FILES / "tiny.yaml", "--resume=last", "--trainer.max_epochs=2",
        "--weights=start.safetensors", "--data.classes=[ellipse,ring]",
        f"--trainer.default_root_dir={checkpoint.parents[3]}",
    )  # fmt: skip
    run, recorded = checkpoint.parents[1], RECORDED["resumed"]
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    # The same weights, optimiser and images; a seed draws other augmentations than it did.
    assert losses == pytest.approx(recorded["train/loss"], rel=0.15)
    # Of the second epoch, whose score is the better one.
    state, info = load_weights(run / "best.safetensors")
    assert info.metrics["epoch"] == 1
    for prefix, total in recorded["sum_of_absolute_weights"].items():
        weights = [
            tensor.double().abs().sum().item()
            for name, tensor in state.items()
            if name.startswith(prefix) and tensor.is_floating_point() and "running" not in name
        ]
        assert sum(weights) == pytest.approx(total, rel=1e-3), prefix
