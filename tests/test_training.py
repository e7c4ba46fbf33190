import json
import re

import pytest
import torch
import yaml
from runs import DETECTION, POINTS, SEGMENTATION, run_command, write_config
from safetensors.torch import load_file

import mbv2det
from mbv2det.build import build_model, build_tasks
from mbv2det.config import OptimConfig
from mbv2det.geometry import Frame
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.structures import Batch, BoxTargets, SampleKey
from mbv2det.tasks.task import metrics_document
from mbv2det.training.callbacks import ramped_average
from mbv2det.training.module import DenseModule, NonFiniteLossError


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder)
    done = run_command("train", config)
    return config, folder / "runs/tiny/1", done


def test_a_run_writes_all_its_files(two_epochs):
    _, run, _ = two_epochs
    present = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert {
        "config.yaml", "metrics.csv", "metrics.json", "best.safetensors",
        "checkpoints/last.ckpt", "pictures/000001.png",
    } <= present  # fmt: skip
    assert any("tfevents" in name for name in present)


def test_the_saved_configuration_trains_again_to_the_same_weights(two_epochs, tmp_path):
    _, run, _ = two_epochs
    again = tmp_path / "again.yaml"
    again.write_text((run / "config.yaml").read_text())
    run_command("train", again, f"--trainer.default_root_dir={tmp_path}")
    first = load_file(run / "best.safetensors")
    second = load_file(tmp_path / "again/1/best.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resuming_after_one_epoch_equals_two_epochs(two_epochs, tmp_path):
    config, _, _ = two_epochs
    moved = f"--trainer.default_root_dir={tmp_path}"
    # max_epochs stays 2, as the schedule's length depends on it; the run is cut by its steps.
    run_command("train", config, moved, "--trainer.max_steps=2", "--optim.schedule=constant")
    run_command("train", config, moved, "--resume=last", "--optim.schedule=constant")
    straight = tmp_path / "straight"
    run_command(
        "train", config, f"--trainer.default_root_dir={straight}", "--optim.schedule=constant"
    )
    resumed = torch.load(tmp_path / "tiny/1/checkpoints/last.ckpt", weights_only=True)
    unbroken = torch.load(straight / "tiny/1/checkpoints/last.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        for name, tensor in unbroken[part].items():
            assert torch.equal(tensor, resumed[part][name]), (part, name)
    assert list((tmp_path / "tiny/1").glob("metrics.before_resume_1.csv"))


def test_eval_gives_the_metrics_of_training(two_epochs, tmp_path):
    config, run, _ = two_epochs
    run_command("eval", config, "--weights", run / "best.safetensors", "--out", tmp_path / "m.json")
    trained = json.loads((run / "metrics.json").read_text())["detection"]
    measured = json.loads((tmp_path / "m.json").read_text())["detection"]
    assert measured == trained


def test_eval_of_the_folder_of_a_run_measures_its_best_weights(two_epochs, tmp_path):
    _, run, _ = two_epochs
    trained = json.loads((run / "metrics.json").read_text())["detection"]
    for argument in (run, run / "config.yaml"):
        run_command("eval", argument, "--out", tmp_path / "m.json")
        measured = json.loads((tmp_path / "m.json").read_text())
        assert measured["detection"] == trained
        assert measured["weights"] == str(run / "best.safetensors")


def test_eval_of_a_configuration_needs_weights(two_epochs):
    config, _, _ = two_epochs
    done = run_command("eval", config, check=False)
    assert done.returncode == 2
    assert "--weights: expected the .safetensors or .ckpt file" in done.stderr


def test_eval_uses_the_settings_of_the_weights(two_epochs, tmp_path):
    config, run, _ = two_epochs
    done = run_command(
        "eval", config, "--weights", run / "best.safetensors",
        "--eval.nms_iou=0.5", "--backbone.width_mult=1.0",
    )  # fmt: skip
    assert "eval.nms_iou: 0.6 in the weights, 0.5 configured; the command line wins" in done.stderr


def test_predict_needs_only_the_weights(two_epochs, tmp_path):
    _, run, _ = two_epochs
    images = yaml.safe_load((run / "config.yaml").read_text())["data"]["root"] + "/val"
    run_command("predict", "--weights", run / "best.safetensors", images, "--out", tmp_path)
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 5
    results = json.loads((tmp_path / "results.json").read_text())
    ids = mbv2det.load(run / "best.safetensors").info.label_maps["detection"].ids
    assert {r["category_id"] for r in results} <= set(ids)
    assert {r["image_id"] for r in results} <= {1, 2, 3, 4, 5}


def test_the_best_weights_are_the_averaged_ones(two_epochs, tmp_path):
    config, run, _ = two_epochs
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    averaged, raw = state["state_dict"], state["current_model_state"]
    assert any(not torch.equal(averaged[name], raw[name]) for name in averaged)
    run_command("train", config, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}")
    (run,) = tmp_path.glob("tiny/*")
    averaged = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    shared = load_file(run / "best.safetensors")  # the only epoch is the best one
    assert all(torch.equal(averaged[f"model.{name}"], shared[name]) for name in shared)


def repeat_images(annotations, times):
    """Writes COCO annotations with every image several times beside those of each image once."""
    document = json.loads(annotations.read_text())
    records = {key: document[key] for key in ("images", "annotations")}
    shift = 1 + max(record["id"] for part in records.values() for record in part)
    document["images"] = [
        image | {"id": image["id"] + shift * number}
        for number in range(times)
        for image in records["images"]
    ]
    document["annotations"] = [
        made | {"id": made["id"] + shift * number, "image_id": made["image_id"] + shift * number}
        for number in range(times)
        for made in records["annotations"]
    ]
    annotations.with_name("repeated.json").write_text(json.dumps(document))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("heads", "task", "metric"),
    [
        (DETECTION, "detection", "AP"),
        (POINTS, "detection", "AP"),
        (SEGMENTATION, "segmentation", "mIoU"),
    ],
)
def test_overfits_four_images(tmp_path, heads, task, metric):
    config = write_config(tmp_path, num_train=4, num_val=1, heads=heads, stride=16)
    # Ten times an epoch: its end, with a checkpoint and a table, takes as long as a step.
    repeat_images(tmp_path / "shapes/annotations/instances_train.json", 10)
    run_command(
        "train", config, "--data.train.annotations=annotations/repeated.json",
        "--data.val.annotations=annotations/instances_train.json", "--data.val.images=train",
        "--trainer.max_epochs=40", "--trainer.check_val_every_n_epoch=40",
        "--backbone.width_mult=0.5", "--data.image_size=[241,321]", "--optim.lr=0.003",
        "--optim.ema_decay=0.95", "--augment.flip=0", "--augment.expand=0",
        "--augment.photometric=0", "--augment.iou_crop=false",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "runs/tiny/1/metrics.json").read_text())
    assert metrics[task][metric] > 0.9


def test_the_decay_of_ema_rises_with_the_steps():
    # min(0.5, (1 + n) / (10 + n)): 2/11 after one step, 0.5 from the eighth on.
    for steps, kept in ((1, 2 / 11), (8, 0.5), (100, 0.5)):
        averaged = [torch.ones(2)]
        ramped_average(averaged, [torch.zeros(2)], torch.tensor(steps), decay=0.5)
        assert averaged[0].tolist() == pytest.approx([kept, kept])


def test_ema_copies_counters():
    averaged = [torch.tensor(3)]
    ramped_average(averaged, [torch.tensor(7)], torch.tensor(5), decay=0.5)
    assert int(averaged[0]) == 7


def test_a_loss_that_is_not_finite_names_step_and_images():
    config = ModelConfig(BackboneConfig(width_mult=0.35), {"detection": SSDLiteConfig()})
    labels = {"detection": LabelMap(("a",), (1,))}
    model = build_model(config, PreprocessSpec((64, 64)), labels)
    torch.nn.init.constant_(model.heads["detection"].box_predictors[0][1].bias, torch.nan)
    tasks = build_tasks(config, EvalConfig(), labels)
    module = DenseModule(model, tasks, OptimConfig(), {}, ["first", "second"], lambda seen: seen)
    batch = Batch(
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        [SampleKey(0, 1), SampleKey(0, 0)],
        [Frame((64, 64))] * 2,
        BoxTargets(
            torch.tensor([8.0, 8.0, 16.0, 16.0]).expand(2, 1, 4),
            torch.zeros(2, 1, dtype=torch.int64),
            torch.zeros(2, 1, dtype=torch.bool),
            torch.ones(2, dtype=torch.bool),
        ),
    )
    with pytest.raises(NonFiniteLossError, match=r"step 0: .*boxes nan.*Images.*: second, first"):
        module.training_step(batch, 0)


def test_metrics_document_has_the_number_of_images():
    blocks = {"detection": {"AP": 0.5, "images": 7}, "segmentation": {"mIoU": 0.5, "images": 3}}
    assert metrics_document(blocks) == blocks | {"images": 7}


def test_progress_is_shown(two_epochs):
    _, _, done = two_epochs
    assert re.search(r"Epoch 1: 100%", done.stdout)
    assert "AP50" in done.stdout
