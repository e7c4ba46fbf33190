"""The commands on weights files: import, training from them, evaluation, prediction, errors."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
import torch
from networks import randomise
from runs import run_command, write_config
from torchvision.models import mobilenet_v2
from unsafe_pickle import RunsCode

import mbv2det
from mbv2det.build import build, build_model
from mbv2det.cli.weights_import import check
from mbv2det.config import OptimConfig
from mbv2det.errors import ConfigError
from mbv2det.heads.classifier import ClassifierConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessSpec
from mbv2det.training.optim import make_optimizer
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import load_weights, save_weights
from mbv2det.weights.source import WeightsSource
from mbv2det.weights.torchvision import read_torchvision
from mbv2det.weights.transfer import transfer

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.logger=false")
NETWORK = (
    "--backbone.width_mult=0.1", "--backbone.scale_last_layer=true", "--backbone.padding=same",
    "--backbone.norm_eps=0.001", "--data.image_size=[64,96]",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a configuration, a run of it with another network, and the run's weights.

    The weights' preprocessing has another mean than the run's.
    """
    folder = tmp_path_factory.mktemp("weights")
    config = write_config(folder, num_train=4, num_val=2)
    run_command("train", config, *QUICK, *NETWORK, "--data.classes=[triangle,ellipse,star]")
    run = folder / "runs/tiny/1"
    state, info = load_weights(run / "best.safetensors")
    spec = replace(info.preprocess, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    weights = folder / "model.safetensors"
    save_weights(weights, state, replace(info, preprocess=spec))
    return config, run, weights


def errors_of(done):
    return [line for line in done.stderr.splitlines() if "error: " in line]


def fails(name, *arguments):
    """Runs a command that fails by a user's error; returns its one line."""
    done = run_command(name, *arguments, check=False)
    (error,) = errors_of(done)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == error
    return error


# Training from a model


def test_training_starts_from_a_model_for_other_classes(trained, tmp_path):
    config, _, weights = trained
    done = run_command(
        "train", config, *QUICK, f"--weights={weights}", "--data.classes=[ring,triangle]",
        f"--trainer.default_root_dir={tmp_path}",
    )  # fmt: skip
    lines = done.stderr.splitlines()
    start = lines.index(f"weights: {weights}")
    summary = [line.split(": ", 1)[1] for line in lines[start + 1 : start + 6]]
    assert summary[0].endswith(" tensors copied")
    assert summary[1].endswith(" tensors copied, 12 class by class")
    assert summary[2:] == [
        "2 of 3 classes copied by name: background, triangle",
        "1 classes newly initialised: ring",
        "2 classes of the weights left out: ellipse, star",
    ]
    state, info = load_weights(tmp_path / "tiny/1/best.safetensors")
    assert info.label_maps["detection"].names == ("ring", "triangle")
    assert info.preprocess.mean == IMAGENET_MEAN
    assert f"--weights={weights.name}" in info.command
    assert str(weights.parent) not in info.command
    before, _ = load_weights(weights)
    name = "backbone.layers.layer_3.expand.conv.weight"
    # One step of Adam moves a number by about its rate: a tenth of 0.002.
    assert 0 < (state[name] - before[name]).abs().max() < 1e-3
    (optimizer,) = torch.load(tmp_path / "tiny/1/checkpoints/last.ckpt")["optimizer_states"]
    rates = {group["initial_lr"] for group in optimizer["param_groups"]}
    assert sorted(rates) == pytest.approx([0.0002, 0.002])


SETTINGS = {
    "backbone.width_mult": (0.1, 0.35),
    "backbone.scale_last_layer": (True, False),
    "backbone.padding": ("same", "symmetric"),
    "backbone.norm_eps": (0.001, 1e-05),
    "data.image_size": ([64, 96], [96, 128]),
}


def test_the_weights_settings_win_and_each_difference_is_printed(trained, tmp_path):
    config, _, weights = trained
    root = f"--trainer.default_root_dir={tmp_path}"
    done = run_command("train", config, *QUICK, f"--weights={weights}", root)
    assert [line for line in done.stderr.splitlines() if line.endswith("win")] == [
        f"{key}: {stored} in the weights, {configured} configured; the weights win"
        for key, (stored, configured) in SETTINGS.items()
    ]
    _, stored = load_weights(weights)
    _, info = load_weights(tmp_path / "tiny/1/best.safetensors")
    assert info.model == stored.model
    assert info.preprocess == stored.preprocess


def test_the_command_line_wins_over_the_weights(trained, tmp_path):
    config, _, weights = trained
    done = run_command(
        "train", config, *QUICK, f"--weights={weights}", f"--trainer.default_root_dir={tmp_path}",
        "--backbone.padding=symmetric", "--data.image_size=64", "--data.resize=fit",
        "--heads.detection.class_loss=focal",
    )  # fmt: skip
    lines = done.stderr.splitlines()
    for line in (
        "backbone.padding: same in the weights, symmetric configured; the command line wins",
        "data.image_size: [64, 96] in the weights, [64, 64] configured; the command line wins",
        "data.resize: stretch in the weights, fit configured; the command line wins",
        "heads.detection.class_loss: softmax in the weights, focal configured; "
        "the command line wins",
        "  heads.detection: 1 classes of the weights left out: background",
    ):
        assert line in lines
    _, info = load_weights(tmp_path / "tiny/1/best.safetensors")
    assert info.model.backbone.padding == "symmetric"
    assert info.model.backbone.width_mult == 0.1
    assert info.preprocess == PreprocessSpec((64, 64), "fit", IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("more", [(), ("--optim.pretrained_lr_mult=1",), ("--optim.lr=0.1",)])
def test_a_run_from_a_model_resumes_without_the_initial_weights_file(more, trained, tmp_path):
    config, _, weights = trained
    start = tmp_path / "start.safetensors"
    copyfile(weights, start)
    common = (config, *QUICK, f"--weights={start}", f"--trainer.default_root_dir={tmp_path}")
    run_command("train", *common, "--data.classes=[triangle,ring]")
    command = load_weights(tmp_path / "tiny/1/best.safetensors")[1].command
    start.unlink()
    again = (*common, "--data.classes=[triangle,ring]", "--resume=last", "--trainer.max_epochs=2")
    done = run_command("train", *again, *more)
    assert errors_of(done) == []
    assert "copied" not in done.stderr
    assert "kept" not in done.stderr
    checkpoint = torch.load(tmp_path / "tiny/1/checkpoints/last.ckpt")
    assert checkpoint["epoch"] == 1
    assert json.loads(checkpoint["mbv2det"])["command"] == command
    assert not (tmp_path / "tiny/2").exists()


def test_the_configuration_of_a_run_reproduces_it(trained, tmp_path):
    config, _, weights = trained
    first = run_command(
        "train", config, *QUICK, f"--weights={weights}", "--data.classes=[triangle,ring]",
        "--backbone.padding=symmetric", "--data.image_size=64",
        f"--trainer.default_root_dir={tmp_path}",
    )  # fmt: skip
    assert "the command line wins" in first.stderr
    saved = tmp_path / "tiny/1/config.yaml"
    assert "width_mult: 0.1" in saved.read_text()
    second = run_command("train", saved)
    assert "backbone.padding: same in the weights, symmetric configured; override_weights wins" in (
        second.stderr.splitlines()
    )
    one, info = load_weights(tmp_path / "tiny/1/best.safetensors")
    two, same = load_weights(tmp_path / "config/1/best.safetensors")
    assert (same.model, same.preprocess, same.label_maps) == (
        info.model,
        info.preprocess,
        info.label_maps,
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("change", ["renamed", "cut"])
def test_a_model_that_contradicts_its_header_is_refused(change, trained, tmp_path):
    config, _, weights = trained
    state, info = load_weights(weights)
    name = "backbone.layers.layer_5.project.conv.weight"
    tensor = state.pop(name)
    state[name + ("x" if change == "renamed" else "")] = tensor[:4].clone()
    broken = tmp_path / "broken.safetensors"
    save_weights(broken, state, info)
    for key in ("weights", "backbone.weights"):
        done = run_command("train", config, *NETWORK, f"--{key}={broken}", check=False)
        assert done.returncode == 2
        assert "problem" in done.stderr  # the table
        assert "expected the tensors of the network, got 1 " in done.stderr.splitlines()[-1]


def test_another_backbone_is_refused(trained):
    config, _, weights = trained
    error = fails("train", config, f"--weights={weights}", "--backbone.name=mobilenet_v1")
    assert (
        error == f"error: backbone.name: expected mobilenet_v2, as in {weights}, got mobilenet_v1"
    )


def test_only_norms_that_were_loaded_are_frozen(trained, tmp_path):
    config, _, weights = trained
    run_command(
        "train", config, *QUICK, f"--weights={weights}", "--heads.detection.name=ssd",
        "--optim.freeze_norm=all", "--data.classes=[triangle,ellipse,star]",
        f"--trainer.default_root_dir={tmp_path}",
    )  # fmt: skip
    before, _ = load_weights(weights)
    state, _ = load_weights(tmp_path / "tiny/1/best.safetensors")
    moved = [n for n in state if n.endswith("running_mean") and n in before
             and not torch.equal(state[n], before[n])]  # fmt: skip
    untrained = [n for n in state if n.endswith("running_mean") and (state[n] == 0).all()]
    assert [name for name in moved if name.startswith("backbone.")] == []
    assert untrained == []


def test_weights_of_a_model_and_of_a_backbone_exclude_each_other(trained):
    config, _, weights = trained
    error = fails("train", config, f"--weights={weights}", f"--backbone.weights={weights}")
    assert error == "error: weights: expected either weights or backbone.weights, got both"


def test_a_network_of_other_channels_is_refused(trained, tmp_path):
    config, _, weights = trained
    error = fails(
        "train", config, f"--weights={weights}", "--backbone.width_mult=0.5",
        f"--trainer.default_root_dir={tmp_path}",
    )  # fmt: skip
    assert error == f"error: backbone.width_mult: expected 0.1, as in {weights}, got 0.5"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("--backbone.padding=symmetric", "another network"),
        ("--data.image_size=64", "other preprocessing"),
        ("--data.classes=auto", "other classes"),
    ],
)
def test_a_run_does_not_resume_with_another_model(trained, change, expected):
    config, run, _ = trained
    last = run / "checkpoints/last.ckpt"
    same = (config, *NETWORK, "--data.classes=[triangle,ellipse,star]", f"--resume={last}")
    error = fails("train", *same, change)
    assert error == (
        f"error: --resume: {last}: expected the configured model, got one with {expected}; "
        "use the configuration of that run"
    )


def test_transferred_tensors_learn_at_a_fraction_of_the_rate():
    def built(names):
        model = ModelConfig(
            BackboneConfig(width_mult=0.1, scale_last_layer=True),
            {"detection": SSDLiteConfig()},
        )
        label_maps = {"detection": LabelMap(names, tuple(range(len(names))))}
        info = WeightsInfo(model, PreprocessSpec((64, 64)), label_maps)
        return build_model(info.model, info.preprocess, info.label_maps), info

    old, stored = built(("cat", "dog"))
    new, info = built(("dog", "cow"))
    source = WeightsSource("w", old.state_dict(), stored, lambda name: name)
    transferred = transfer(source, new, info.model, info.label_maps).transferred
    config = OptimConfig(lr=0.5, momentum=0.0, weight_decay=0.0, pretrained_lr_mult=0.1)
    optimizer = make_optimizer(new, config, transferred)
    before = {name: param.detach().clone() for name, param in new.named_parameters()}
    for param in new.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    new_names = {n for n in before if ".class_predictors." in n and n not in transferred}
    assert len(new_names) == 12  # six levels' weights and biases
    for name, param in new.named_parameters():
        step = 0.5 if name in new_names else 0.05
        torch.testing.assert_close(param.detach(), before[name] - step, msg=name)


# Checkpoints


def test_an_imported_checkpoint_has_the_same_metrics(trained, tmp_path):
    config, run, _ = trained
    last, out = run / "checkpoints/last.ckpt", tmp_path / "last.safetensors"
    done = run_command("import_weights", "ckpt", last, "--out", out)
    assert f"weights: {out}" in done.stderr.splitlines()
    assert "3 classes: triangle, ellipse, star" in done.stdout
    metrics = []
    for weights in (last, out):
        run_command("eval", config, "--weights", weights, "--out", tmp_path / "m.json")
        metrics.append(json.loads((tmp_path / "m.json").read_text())["detection"])
    assert metrics[0] == metrics[1]
    assert load_weights(out)[1] == load_weights(last)[1]


# Weights without a head for boxes or masks


def saved(folder, name, heads, label_maps):
    info = WeightsInfo(
        ModelConfig(BackboneConfig(width_mult=0.1), heads), PreprocessSpec((64, 64)), label_maps
    )
    model = randomise(build_model(info.model, info.preprocess, label_maps))
    save_weights(folder / name, model.state_dict(), info)
    return folder / name


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("backbone"), "backbone.safetensors", {}, {})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    label_maps = {"classification": LabelMap.of_masks([f"class {k}" for k in range(7)])}
    heads = {"classification": ClassifierConfig()}
    return saved(tmp_path_factory.mktemp("classifier"), "classifier.safetensors", heads, label_maps)


def test_a_backbone_alone_is_refused_where_a_model_is_needed(trained, backbone, tmp_path):
    config = trained[0]
    assert (
        f"heads: {backbone}: expected a head for detection, as tiny configures, got none"
        in fails("eval", config, "--weights", backbone)
    )
    expected = f"--weights: expected a head, got a backbone alone in {backbone}"
    images = config.parent / "shapes/val"
    assert expected in fails("predict", "--weights", backbone, images, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    error = fails("train", config, *QUICK, "--weights", backbone)
    assert "weights: expected a head for detection or segmentation, got none" in error
    assert error.endswith("to use its backbone, set backbone.weights")


def test_a_classifier_is_refused_by_eval_and_train(trained, classifier):
    config = trained[0]
    assert (
        f"heads: {classifier}: expected a head for detection, as tiny configures, got a head for "
        "classification" in fails("eval", config, "--weights", classifier)
    )
    assert "to use its backbone, set backbone.weights" in fails(
        "train", config, *QUICK, "--weights", classifier
    )


@pytest.mark.parametrize("name", ["backbone", "classifier"])
def test_training_starts_from_a_backbone_of_either_source(trained, name, request, tmp_path):
    weights = request.getfixturevalue(name)
    done = run_command(
        "train", trained[0], *QUICK, f"--backbone.weights={weights}", "--backbone.width_mult=0.1",
        f"--trainer.default_root_dir={tmp_path}",
    )  # fmt: skip
    assert f"backbone.weights: {weights}" in done.stderr.splitlines()


def test_a_backbone_of_another_width_is_refused(trained, backbone):
    error = fails("train", trained[0], *QUICK, f"--backbone.weights={backbone}")
    assert f"backbone.width_mult: expected 0.1, as in {backbone}, got 0.35" in error


def test_predict_lists_the_most_probable_classes_of_an_image(trained, classifier, tmp_path):
    images = trained[0].parent / "shapes/val"
    done = run_command("predict", "--weights", classifier, images, "--out", tmp_path)
    classes = json.loads((tmp_path / "classes.json").read_text())
    assert [record["file_name"] for record in classes] == ["000001.jpg", "000002.jpg"]
    predictor = mbv2det.load(classifier)
    for record in classes:
        stem, rows = Path(record["file_name"]).stem, record["classes"]
        scores = [row["score"] for row in rows]
        assert len(rows) == 5
        assert scores == sorted(scores, reverse=True)
        prediction = predictor.predict_file(images / f"{stem}.jpg").classification
        expected = [
            predictor.info.label_maps["classification"].names[k] for k in prediction.labels.tolist()
        ]
        assert [row["class"] for row in rows] == expected
        assert f"{stem}: {rows[0]['class']} {rows[0]['score']:.2f}, " in done.stderr
    present = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert present == {"classes.json", "pictures/000001.jpg", "pictures/000002.jpg"}


# Files that cannot be read


def test_eval_requires_weights(trained):
    expected = "error: --weights: expected the .safetensors or .ckpt file to measure, got none"
    assert fails("eval", trained[0]) == expected


@pytest.mark.parametrize("name", ["eval", "predict", "train"])
def test_another_librarys_file_is_refused_with_advice(trained, library_files, name, tmp_path):
    config, file = trained[0], library_files / "net.pth"
    arguments = {
        "eval": (config, "--weights", file),
        "predict": ("--weights", file, config.parent / "shapes/val", "--out", tmp_path),
        "train": (config, *QUICK, "--weights", file),
    }[name]
    expected = f"{file}: expected a .safetensors or .ckpt file of this toolkit; import_weights"
    assert expected in fails(name, *arguments)


@pytest.fixture(scope="module")
def library_files(tmp_path_factory):
    """Returns a folder with weights of other libraries, most of them damaged."""
    folder = tmp_path_factory.mktemp("libraries")
    state = randomise(mobilenet_v2(width_mult=0.1, num_classes=3)).state_dict()
    torch.save(state, folder / "net.pth")
    (folder / "cut.pth").write_bytes((folder / "net.pth").read_bytes()[:-1000])
    torch.save({"features.0.0.weight": RunsCode(folder / "witness")}, folder / "trap.pth")
    renamed = {name.replace("features.18.1.bias", "another"): t for name, t in state.items()}
    renamed["features.0.1.bias"] = torch.zeros(3)
    torch.save(renamed, folder / "renamed.pth")
    np.savez(folder / "arrays.npz", **{"MobilenetV2/Conv/weights": np.zeros((3, 3, 3, 8))})
    (folder / "three.txt").write_text("red\ngreen\n\nblue\n")
    (folder / "four.txt").write_text("red\ngreen\nblue\nblack\n")
    (folder / "twice.txt").write_text("red\nred\nblue\n")
    return folder


def test_weights_are_imported_and_predict(library_files, trained, tmp_path):
    out = tmp_path / "new/net.safetensors"
    done = run_command(
        "import_weights", "torchvision", library_files / "net.pth", "--out", out,
        "--labels", library_files / "three.txt",
    )  # fmt: skip
    assert "3 classes: red, green, blue" in done.stdout
    assert "check: outputs for a random image, of up to " in done.stderr
    assert done.stderr.splitlines()[-1] == f"weights: {out}"
    assert [path.name for path in out.parent.iterdir()] == ["net.safetensors"]
    _, info = load_weights(out)
    assert info.label_maps["classification"] == LabelMap(("red", "green", "blue"), (0, 1, 2))
    assert (info.metrics, info.command) == ({}, "")
    images = trained[0].parent / "shapes/val"
    run_command("predict", "--weights", out, images, "--out", tmp_path)
    rows = json.loads((tmp_path / "classes.json").read_text())[0]["classes"]
    assert {row["class"] for row in rows} == {"red", "green", "blue"}


@pytest.mark.parametrize(
    ("format", "source", "expected"),
    [
        ("torchvison", "net.pth", "got 'torchvison'; did you mean 'torchvision'?"),
        ("onnx", "net.pth", "FORMAT: expected one of torchvision, timm, hf, tf, ckpt, got 'onnx'"),
        ("torchvision", "none.pth", "none.pth: expected a file, found none"),
        ("torchvision", "none", "SOURCE: expected a file (.pth, .pt, .bin, .safetensors) or a"),
        ("hf", "none", "SOURCE: expected a folder with config.json, or a file of weights, got "),
        ("tf", "none", "expected TensorFlow's variables as an .npz file, a checkpoint"),
        ("ckpt", "none.ckpt", "none.ckpt: expected a file, found none"),
        ("tf", "net.pth", "net.pth: expected TensorFlow's variables as an .npz file, a check"),
        ("timm", "net.pth", "expected MobileNetV2, got no tensor 'conv_stem.weight' (first name: "),
        ("hf", "net.pth", "expected MobileNetV2, got no tensor 'conv_stem.first_conv.convolution"),
        ("ckpt", "net.pth", "expected a .safetensors or .ckpt file of this toolkit"),
        ("torchvision", "arrays.npz", "arrays.npz: expected a file of torch.save or safetensors"),
        ("hf", "arrays.npz", "arrays.npz: expected a file of torch.save or safetensors"),
        ("tf", "arrays.npz", "got no tensor 'MobilenetV2/expanded_conv/project/weights' (first"),
        ("torchvision", "trap.pth", "trap.pth: expected a file of tensors "),
        ("timm", "trap.pth", "trap.pth: expected a file of tensors "),
        ("hf", "trap.pth", "trap.pth: expected a file of tensors "),
        ("torchvision", "cut.pth", "cut.pth: expected a file of tensors "),
        ("torchvision", "", ": expected a file, found none"),
        ("torchvision", "MobileNet_V2_Weights.NONE", "or a name such as MobileNet_V2_Weights."),
    ],
)  # fmt: skip
def test_other_sources_are_refused_and_nothing_is_written(
    library_files, format, source, expected, tmp_path
):
    argument = source if "Weights" in source else library_files / source
    out = tmp_path / "out.safetensors"
    assert expected in fails("import_weights", format, argument, "--out", out)
    assert list(tmp_path.iterdir()) == []
    assert not (library_files / "witness").exists()


def test_all_mismatched_tensors_are_in_a_table_above_the_error(library_files, tmp_path):
    done = run_command(
        "import_weights", "torchvision", library_files / "renamed.pth",
        "--out", tmp_path / "out.safetensors", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (error,) = errors_of(done)
    assert done.stderr.splitlines()[-1] == error
    assert "got 1 wrong shape, 1 missing, 1 unexpected; first: features.0.1.bias" in error
    cells = [line.split("│")[1:-1] for line in done.stderr.splitlines() if line.startswith("│")]
    columns = ["".join(cell.strip() for cell in column) for column in zip(*cells, strict=True)]
    assert columns == [
        "features.0.1.biasfeatures.18.1.biasanother",
        "wrong shapemissingunexpected",
        "(8,)(1280,) forbackbone.layers.layer_19.norm.bias",
        "(3,)(1280,)",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("four.txt", "four.txt: expected 3 names, one per line, got 4"),
        ("twice.txt", "twice.txt: expected unique classes, got the name 'red' twice"),
        ("none.txt", "--labels: expected a file of names, found none at "),
    ],
)
def test_names_that_do_not_fit_are_refused(library_files, labels, expected, tmp_path):
    error = fails(
        "import_weights", "torchvision", library_files / "net.pth",
        "--out", tmp_path / "out.safetensors", "--labels", library_files / labels,
    )  # fmt: skip
    assert expected in error
    assert error.startswith("error: --labels: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("out.pth", "--out: expected a name that ends in .safetensors, got "),
        ("folder.safetensors", "--out: expected a file in a folder, got "),
        ("file/out.safetensors", "--out: expected a file in a folder, got "),
    ],
)
def test_paths_that_cannot_be_written_are_refused(library_files, out, expected, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    arguments = ("torchvision", library_files / "net.pth", "--out", tmp_path / out)
    assert expected in fails("import_weights", *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_help_of_import_weights():
    text = run_command("import_weights", "--help").stdout
    assert "usage:" in text
    for format in ("torchvision", "timm", "hf", "tf", "ckpt"):
        assert f"\n{format}  " in text


def test_outputs_that_differ_from_the_sources_own_are_refused(library_files):
    source = read_torchvision(str(library_files / "net.pth"))
    info = source.info
    model, tasks = build(info)
    with pytest.raises(ConfigError, match=r"net\.pth: outputs for .*: expected at most"):
        check(source, model.eval(), tasks)  # its weights are fresh, not the source's


def test_a_pickle_in_torchs_cache_is_not_executed(tmp_path, monkeypatch):
    witness = tmp_path / "witness"
    cache = tmp_path / "hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save({"features.0.0.weight": RunsCode(witness)}, cache / "mobilenet_v2-b0353104.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    out = tmp_path / "out.safetensors"
    name = "MobileNet_V2_Weights.IMAGENET1K_V1"
    error = fails("import_weights", "torchvision", name, "--out", out)
    assert "nothing in it was executed" in error
    assert not witness.exists()
    assert not out.exists()


def test_weights_with_nan_are_refused(library_files, tmp_path):
    state = torch.load(library_files / "net.pth", weights_only=True)
    state["features.0.0.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    out = tmp_path / "out.safetensors"
    error = fails("import_weights", "torchvision", tmp_path / "nan.pth", "--out", out)
    assert "expected finite outputs" in error
    assert not out.exists()


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.zeros(0), torch.zeros(3)])
@pytest.mark.parametrize(
    "name", ["features.0.0.weight", "classifier.1.bias", "classifier.1.weight"]
)
def test_tensors_of_any_shape_end_in_one_line(name, value, library_files, tmp_path):
    state = torch.load(library_files / "net.pth", weights_only=True)
    state[name] = value
    torch.save(state, tmp_path / "odd.pth")
    out = tmp_path / "out.safetensors"
    done = run_command(
        "import_weights", "torchvision", tmp_path / "odd.pth", "--out", out, check=False
    )
    if name == "classifier.1.bias" and value.shape == (3,):  # the right shape
        assert done.returncode == 0
        return
    assert done.returncode == 2
    assert not out.exists()
