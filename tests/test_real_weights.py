"""Published weights, imported: they predict what their own implementation predicts."""

import json

import pytest
import torch
from runs import ROOT, run_command
from torchvision.models import mobilenet_v2

import mbv2det
from mbv2det.data.images import read_image

PHOTOS = {
    "cat.bmp": {"tabby", "tiger cat", "Egyptian cat"},
    "grace_hopper.bmp": {"military uniform"},
    "kite_and_cold.jpg": {"seashore", "sandbar"},
    "parrot.jpg": {"macaw"},
}


def imported(format, source, folder):
    out = folder / "weights.safetensors"
    done = run_command("import_weights", format, source, "--out", out)
    return out, done.stderr


def measured(config, weights, folder, *arguments):
    out = folder / "metrics.json"
    run_command(
        "eval", ROOT / f"configs/{config}.yaml", "--weights", weights, "--out", out, *arguments
    )
    return json.loads(out.read_text())


def test_imagenet_weights_give_torchvisions_logits_and_the_right_classes(
    real_weights, real_data, tmp_path
):
    source, photos = real_weights("mobilenet_v2_imagenet.pth"), real_data("photos")
    path, output = imported("torchvision", source, tmp_path)
    assert "differ by at most" in output
    reference = mobilenet_v2().eval()
    reference.load_state_dict(torch.load(source, weights_only=True))
    predictor = mbv2det.load(path)
    names = predictor.info.label_maps["classification"].names
    for photo, expected in PHOTOS.items():
        image, _ = read_image(photos / photo)
        (predictions,) = predictor([image])
        assert {names[i] for i in predictions.classification.labels} >= expected
        pixels = torch.from_numpy(image[:224, :224].copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            normalised = predictor.model.normalize(pixels)
            logits = predictor.model(pixels)["classification"]
            # Logits of order ten, in float32.
            torch.testing.assert_close(logits, reference(normalised), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_tensorflows_ssdlite_keeps_its_ap(real_weights, real_data, tmp_path):
    path, _ = imported("tf", real_weights("ssdlite_voc_tf.npz"), tmp_path)
    metrics = measured(
        "ssdlite_coco", path, tmp_path, f"--data.root={real_data('coco')}",
        "--data.val.annotations=annotations/instances_val2017_voc20.json",
        "--data.val.images=val2017", "--data.num_workers=0",
    )  # fmt: skip
    detection = metrics["detection"]
    assert metrics["images"] == 183
    # The figures of an independent implementation.
    assert detection["AP"] == pytest.approx(0.3629, abs=5e-4)
    assert detection["AP50"] == pytest.approx(0.5584, abs=5e-4)
    assert detection["AP75"] == pytest.approx(0.3716, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stride", "mean_iou", "accuracy"), [(16, 0.5538, 0.8997), (8, 0.5631, 0.9014)]
)
def test_tensorflows_deeplab_keeps_its_miou(
    stride, mean_iou, accuracy, real_weights, real_data, tmp_path
):
    path, _ = imported("tf", real_weights("deeplabv3_voc_tf.npz"), tmp_path)
    metrics = measured(
        "deeplabv3_voc", path, tmp_path, f"--data.root={real_data('voc21')}",
        f"--backbone.output_stride={stride}", "--data.num_workers=0",
    )  # fmt: skip
    # The figures of an independent implementation.
    assert metrics["segmentation"]["mIoU"] == pytest.approx(mean_iou, abs=5e-4)
    assert metrics["segmentation"]["pixel_accuracy"] == pytest.approx(accuracy, abs=5e-4)
