"""Training with a teacher: what it adds to a run, what it leaves out of every file, refusals."""

import copy
import csv
import json

import pytest
import torch
import yaml
from runs import DETECTION, POINTS, SEGMENTATION, run_command, write_config
from safetensors import safe_open
from teachers import write_teacher
from test_checkpoints import SHORT, final_state, is_equal
from toy_method import PointConfig

from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.labels import LabelMap
from mbv2det.tasks import detection

JOINT = f"{DETECTION}, {SEGMENTATION}"
STEPS = ("--trainer.max_steps=2", "--trainer.limit_val_batches=1")
TERMS = {
    "ssdlite_shapes": {"distill_boxes", "distill_classes"},
    "gfl_lite_shapes": {"distill_distribution", "distill_classes"},
    "deeplabv3_shapes": {"distill_pixels"},
    "joint_shapes": {"distill_boxes", "distill_classes", "distill_pixels"},
}


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """Returns the configuration of a tiny joint model, and a larger teacher for it."""
    folder = tmp_path_factory.mktemp("joint")
    config = write_config(folder, num_train=8, num_val=2, heads=JOINT, stride=16)
    teacher = write_teacher(folder / "teacher.safetensors", config, "--backbone.width_mult=1.0")
    return config, teacher


def module_of(*arguments):
    parts = RunParts.read(SettingsParser("").parse([str(a) for a in arguments]))
    return parts.module(), parts.data()


def structure(value):
    """Returns nested values without their numbers: keys, and shapes of tensors."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: structure(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [structure(inner) for inner in value]
    return type(value)


def tensors_of(path):
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@pytest.mark.slow
@pytest.mark.parametrize("name", TERMS)
def test_a_wide_teacher_teaches_the_shipped_configurations(name, tmp_path):
    shapes = write_config(tmp_path, num_train=8, num_val=2).parent / "shapes"
    data = (f"--data.root={shapes}", "--data.embedded=false", "--data.num_workers=0")
    teacher = write_teacher(
        tmp_path / "teacher.safetensors", name, *data, "--backbone.width_mult=1.0"
    )
    out = f"--trainer.default_root_dir={tmp_path}"
    done = run_command("train", name, *data, *STEPS, f"--distill.weights={teacher}", out)
    assert f"distill.weights: {teacher}: mobilenet_v2" in done.stderr
    with (tmp_path / name / "1/metrics.csv").open() as file:
        logged = set(next(csv.reader(file)))
    assert {f"train/{term}_loss" for term in TERMS[name]} <= logged | _shown(done.stdout)


def _shown(table):
    return {f"train/{word}" for word in table.split() if word.endswith("_loss")}


@pytest.fixture(scope="module")
def both(joint, tmp_path_factory):
    """Returns the folders of a run with a teacher and of one without."""
    config, teacher = joint
    folders = {}
    for name, arguments in (("taught", [f"--distill.weights={teacher}"]), ("alone", [])):
        root = tmp_path_factory.mktemp(name)
        run_command("train", config, *STEPS, f"--trainer.default_root_dir={root}", *arguments)
        folders[name] = root / "tiny/1"
    return folders


def test_no_file_of_the_run_contains_the_teacher(both):
    saved = {
        name: torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        for name, folder in both.items()
    }
    assert structure(saved["taught"]) == structure(saved["alone"])  # averaged weights, too
    weights = {name: tensors_of(folder / "best.safetensors") for name, folder in both.items()}
    assert weights["taught"] == weights["alone"]


def test_the_teacher_changes_what_is_learned(both):
    first, second = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in both.values()
    )
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_settings_of_the_run_name_the_teacher(both, joint):
    settings = yaml.safe_load((both["taught"] / "config.yaml").read_text())["distill"]
    assert settings == {"weights": str(joint[1]), "weight": 1.0, "temperature": 2.0}
    alone = yaml.safe_load((both["alone"] / "config.yaml").read_text())["distill"]
    assert alone.get("weights") is None


def test_the_header_of_the_weights_has_no_setting_of_distillation(both):
    with safe_open(both["taught"] / "best.safetensors", "pt") as file:
        header = json.loads(file.metadata()["mbv2det"])
    header.pop("command")  # the command line, as it was typed
    assert "distill" not in json.dumps(header)


def test_the_student_neither_owns_nor_trains_the_teacher(joint):
    config, teacher = joint
    module, data = module_of(config, f"--distill.weights={teacher}")
    alone, _ = module_of(config)
    assert alone.teacher is None
    assert module.state_dict().keys() == alone.state_dict().keys()
    assert [name for name, _ in module.named_parameters()] == [
        name for name, _ in alone.named_parameters()
    ]
    network = module.teacher.model
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = next(iter(data.train_dataloader()))
    module.train()
    total = sum(weight * terms.total() for weight, terms in module.training_losses(batch))
    total.backward()
    assert not any(part.training for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert copy.deepcopy(module).teacher is module.teacher  # as the averaged weights are made


def test_the_weights_start_as_without_a_teacher(joint):
    config, teacher = joint
    states = []
    for arguments in ([f"--distill.weights={teacher}"], []):
        torch.manual_seed(3)
        states.append(module_of(config, *arguments)[0].model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_terms_are_weighted_by_task_and_distillation(joint):
    config, teacher = joint
    module, data = module_of(
        config,
        f"--distill.weights={teacher}",
        "--distill.weight=3",
        "--heads.segmentation.loss_weight=2",
    )
    batch = next(iter(data.train_dataloader()))
    groups = [(w, set(terms.sums)) for w, terms in module.training_losses(batch)]
    assert groups == [
        (1.0, {"boxes", "classes"}),
        (2.0, {"pixels"}),
        (3.0, {"distill_boxes", "distill_classes"}),
        (6.0, {"distill_pixels"}),
    ]


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    config = write_config(tmp_path, num_val=2)
    teacher = write_teacher(tmp_path / "teacher.safetensors", config, "--backbone.width_mult=1.0")
    taught = (*SHORT, f"--distill.weights={teacher}")
    run_command("train", config, *taught)
    broken = f"--trainer.default_root_dir={tmp_path / 'broken'}"
    stop = [f"--trainer.callbacks.{setting}" for setting in ("step=5", "number=15")]
    callback = "--trainer.callbacks+=test_checkpoints.SignalAt"
    done = run_command("train", config, *taught, broken, callback, *stop, check=False)
    assert done.returncode == 128 + 15, done.stderr
    run_command("train", config, *taught, broken, "--resume=last")
    assert is_equal(final_state(tmp_path / "runs"), final_state(tmp_path / "broken"))


def test_a_teacher_may_have_more_heads_and_another_size(joint, tmp_path):
    config, teacher = joint
    module, data = module_of(
        config, f"--distill.weights={teacher}", "--heads.detection=null", "--data.image_size=64"
    )
    assert list(module.teacher.model.heads) == ["segmentation"]
    batch = next(iter(data.train_dataloader()))
    assert len(module.training_losses(batch)) == 2


def test_a_segmentation_head_learns_from_another_one(tmp_path):
    heads = "segmentation: {name: lraspp}"
    config = write_config(tmp_path, num_train=4, num_val=2, heads=heads, stride=16)
    teacher = write_teacher(
        tmp_path / "teacher.safetensors", config, "--heads.segmentation.name=deeplabv3_light"
    )
    module, data = module_of(config, f"--distill.weights={teacher}")
    (_, _), (_, terms) = module.training_losses(next(iter(data.train_dataloader())))
    assert terms.count.item() == 4 * 24 * 32  # the teacher's grid, at stride 4


@pytest.mark.parametrize(
    ("heads", "of_teacher", "message"),
    [
        (JOINT, ["--heads.segmentation=null"], "a head for segmentation, got one for detection"),
        (DETECTION, ["--heads.detection.name=gfl_lite"], "name ssdlite or ssd, got gfl_lite"),
        (POINTS, ["--heads.detection.name=ssdlite"], "name gfl_lite, got ssdlite"),
        (DETECTION, ["--heads.detection.class_loss=focal"], "class_loss softmax, as the student's"),
        (DETECTION, ["--heads.detection.min_scale=0.1"], "student's"),
        (POINTS, ["--heads.detection.bins=12"], "heads.detection.bins of 8, got 12"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(heads, of_teacher, message, tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2, heads=heads)
    teacher = write_teacher(tmp_path / "teacher.safetensors", config, *of_teacher)
    line = refusal(config, teacher)
    assert message in line
    assert not list(tmp_path.glob("runs/*/*"))


def refusal(config, teacher):
    done = run_command("train", config, f"--distill.weights={teacher}", check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "error: " in x]
    assert f"error: distill.weights: {teacher}: expected" in line
    return line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: (*names[:-1], "cat"), "it lacks {last}; it has cat besides"),
        (lambda names: (*names, "cat"), "got 7: it has cat besides"),
        (lambda names: names[::-1], "class 0 is {first} in the data and {last} in it"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(change, message, tmp_path):
    config = write_config(tmp_path, num_train=4, num_val=2)
    names = module_of(config)[0].tasks[0].label_map.names
    changed = change(names)
    teacher = write_teacher(
        tmp_path / "teacher.safetensors",
        config,
        classes={"detection": LabelMap(changed, tuple(range(len(changed))))},
    )
    assert message.format(first=names[0], last=names[-1]) in refusal(config, teacher)


def test_a_missing_file_is_refused(joint, tmp_path):
    assert "expected a file, found none" in refusal(joint[0], tmp_path / "none.safetensors")


def test_a_method_without_distillation_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "METHODS", [*detection.METHODS, PointConfig])
    monkeypatch.setattr(detection.DetectionTask, "head_kinds", detection.METHODS)
    config = write_config(tmp_path, num_train=4, num_val=2, heads="detection: {name: points}")
    teacher = write_teacher(tmp_path / "teacher.safetensors", config)
    done = run_command("train", config, f"--distill.weights={teacher}", check=False)
    assert done.returncode == 2
    assert "heads.detection.name: points has no distillation; set distill.weights to null" in (
        done.stderr
    )


@pytest.mark.parametrize("setting", ["weight=0", "temperature=-1"])
def test_impossible_settings_are_refused(setting, joint):
    done = run_command("train", joint[0], f"--distill.{setting}", check=False)
    assert done.returncode == 2
    assert f"distill.{setting.split('=')[0]}: expected above 0, got " in done.stderr
