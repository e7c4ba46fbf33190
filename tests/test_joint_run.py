"""Training, evaluation and prediction with both heads on one backbone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from runs import DETECTION, SEGMENTATION, run_command, write_config
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

import mbv2det
from mbv2det.build import evaluation_model, load_network
from mbv2det.data.coco import read_coco
from mbv2det.data.images import read_image
from mbv2det.deploy.predictor import load_model
from mbv2det.model_config import EvalConfig
from mbv2det.segmentation.multi_scale_flip import MultiScaleFlip
from mbv2det.weights.readers import read_model
from mbv2det.weights.share_file import save_weights


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    config = write_config(folder, heads=f"{DETECTION}, {SEGMENTATION}", stride=16)
    run_command("train", config)
    return config, folder / "runs/tiny/1"


@pytest.fixture(scope="module")
def undecided(joint, tmp_path_factory):
    """Returns the weights with varied maps: a short training predicts only background."""
    config, run = joint
    model, info = load_model(run / "best.safetensors")
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    files = sorted((config.parent / "shapes/train").glob("*.jpg"))
    images = [np.asarray(Image.fromarray(read_image(f)[0]).resize((128, 96))) for f in files]
    torch.manual_seed(0)
    with torch.no_grad():
        model.train()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        torch.nn.init.normal_(model.heads["segmentation"].classifier.weight)
    path = tmp_path_factory.mktemp("undecided") / "w.safetensors"
    save_weights(path, model.state_dict(), info)
    return path


def measured(config, weights, out, *arguments):
    run_command("eval", config, "--weights", weights, "--out", out, *arguments)
    return json.loads(out.read_text())


def test_one_weights_file_gives_both_sections_of_metrics(joint, tmp_path):
    config, run = joint
    metrics = measured(config, run / "best.safetensors", tmp_path / "m.json")
    trained = json.loads((run / "metrics.json").read_text())
    assert metrics["detection"] == trained["detection"]
    assert metrics["segmentation"] == trained["segmentation"]
    assert set(metrics["segmentation"]) == {
        "mIoU", "pixel_accuracy", "boundary_IoU", "per_class", "images"
    }  # fmt: skip
    assert list(metrics["segmentation"]["per_class"])[:2] == ["background", "ellipse"]


def test_eval_measures_the_tasks_of_the_configuration(joint, tmp_path):
    config, run = joint
    weights = run / "best.safetensors"
    both = measured(config, weights, tmp_path / "both.json")
    only = measured(config, weights, tmp_path / "only.json", "--heads.detection=null")
    assert "detection" not in only
    assert only["segmentation"] == both["segmentation"]


def test_output_stride_8_gives_a_finer_map_and_the_same_boxes(joint, undecided, tmp_path):
    config, weights = joint[0], undecided
    plain = measured(config, weights, tmp_path / "16.json")
    fine = measured(config, weights, tmp_path / "8.json", "--backbone.output_stride=8")
    assert fine["segmentation"] != plain["segmentation"]
    for name in ("AP", "AP50", "AR100"):
        assert fine["detection"][name] == pytest.approx(plain["detection"][name], abs=1e-3), name

    source = read_model(weights)
    info = source.info
    dilated = replace(info, model=replace(info.model, backbone=replace(
        info.model.backbone, output_stride=8)))  # fmt: skip
    images = torch.zeros(1, 3, 97, 129, dtype=torch.uint8)
    grids = [
        network.eval()(images)["segmentation"].logits.shape[2:]
        for network, _ in (load_network(replace(source, info=i)) for i in (info, dilated))
    ]
    assert grids == [(7, 9), (13, 17)]


def test_scales_and_flip_affect_only_the_segmentation(joint, undecided, tmp_path):
    config, weights = joint[0], undecided
    views = ("--eval.scales=[0.5,1.0]", "--eval.flip=true")
    plain = measured(config, weights, tmp_path / "plain.json")
    many = measured(config, weights, tmp_path / "many.json", *views)
    assert many["detection"] == plain["detection"]
    assert many["segmentation"] != plain["segmentation"]


def test_a_detector_is_run_once_for_several_scales(joint):
    _, run = joint
    predictor, many = mbv2det.load(run / "best.safetensors"), EvalConfig(scales=(0.5, 1.0))
    model, (detection, segmentation) = predictor.model, predictor.tasks
    assert evaluation_model(model, [detection], many) is model
    assert evaluation_model(model, [segmentation], EvalConfig()) is model
    assert isinstance(evaluation_model(model, [detection, segmentation], many), MultiScaleFlip)


def test_predict_draws_both_and_writes_index_pngs(joint, tmp_path):
    config, run = joint
    image = config.parent / "shapes/val/000001.jpg"
    run_command("predict", "--weights", run / "best.safetensors", image, "--out", tmp_path)
    prediction = mbv2det.load(run / "best.safetensors").predict_file(image)
    with Image.open(tmp_path / "masks/000001.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[3:6] == [128, 0, 0]
        np.testing.assert_array_equal(np.asarray(mask), prediction.segmentation.labels.numpy())
    assert prediction.segmentation.labels.shape == read_image(image)[0].shape[:2]
    assert json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "pictures/000001.jpg").is_file()


def test_predict_of_a_segmenter_writes_no_boxes(tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2, heads=SEGMENTATION, stride=16)
    run_command("train", config, "--trainer.max_epochs=1")
    weights = tmp_path / "runs/tiny/1/best.safetensors"
    image = tmp_path / "shapes/val/000001.jpg"
    run_command("predict", "--weights", weights, image, "--out", tmp_path / "out")
    assert not (tmp_path / "out/results.json").exists()
    assert (tmp_path / "out/masks/000001.png").is_file()
    done = run_command(
        "eval", config, "--weights", weights, "--heads.detection.name=ssdlite",
        "--heads.segmentation=null", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        "expected a head for detection, as tiny configures, got a head for segmentation"
        in done.stderr
    )


def test_predictor_of_a_batch_equals_one_by_one(joint, undecided):
    config, _ = joint
    predictor = mbv2det.load(undecided)
    split = read_coco(config.parent / "shapes/annotations/instances_val.json",
                      config.parent / "shapes/val")  # fmt: skip
    images = [read_image(split.path(i))[0] for i in range(3)]
    together = predictor(images)
    for image, prediction in zip(images, together, strict=True):
        alone = predictor([image])[0]
        same = alone.segmentation.labels == prediction.segmentation.labels
        assert same.float().mean() > 0.999  # sums in another order may tip a tie


def test_dropout_is_a_function_of_the_step(tmp_path):
    """Checks that a run resumed in the second epoch drops the same values."""
    heads = SEGMENTATION.replace("}", ", dropout: 0.5}")
    config = write_config(tmp_path, num_train=8, num_val=2, heads=heads, stride=16)
    constant = "--optim.schedule=constant"
    run_command("train", config, "--trainer.max_steps=2", constant)
    run_command("train", config, "--resume=last", constant)
    moved = f"--trainer.default_root_dir={tmp_path / 'straight'}"
    run_command("train", config, constant, moved)
    resumed, unbroken = (
        torch.load(folder / "tiny/1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (tmp_path / "runs", tmp_path / "straight")
    )
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in unbroken.items())


@pytest.fixture
def backbone_weights(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "backbone.pth"
    torch.save(mobilenet_v2(width_mult=0.35).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("frozen", "moves"),
    # The head's were never loaded: there is nothing to keep.
    [
        ("--backbone.freeze=none", (True, True)),
        ("--backbone.freeze=norm", (False, True)),
        ("--optim.freeze_norm=all", (False, True)),
    ],
)
def test_frozen_norms_keep_statistics_and_weights(tmp_path, backbone_weights, frozen, moves):
    config = write_config(tmp_path, num_train=4, num_val=2, heads=SEGMENTATION, stride=16)
    run_command(
        "train", config, frozen, "--optim.ema_decay=0",
        f"--backbone.weights={backbone_weights}",
    )  # fmt: skip
    state = load_file(tmp_path / "runs/tiny/1/best.safetensors")
    for norm, moved in zip(
        ("backbone.layers.layer_1.norm", "heads.segmentation.aspp.project.norm"), moves, strict=True
    ):
        assert bool((state[f"{norm}.running_mean"] != 0).any()) == moved
        assert bool((state[f"{norm}.weight"] != 1).any()) == moved
