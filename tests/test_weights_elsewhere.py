"""Weights that are elsewhere: releases of TensorFlow's, addresses, repositories of the Hub."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from file_server import served
from huggingface_hub import constants
from networks import randomise
from runs import run_command, write_config
from tensorflow_files import write_checkpoint, write_frozen_graph, write_release
from test_hub import DETECTION, info_of, network_of
from test_tensorflow_weights import ssdlite

import mbv2det
from mbv2det.build import load_network
from mbv2det.errors import ConfigError
from mbv2det.weights.readers import read_backbone, read_model, weights_file
from mbv2det.weights.releases import RELEASES, release_address
from mbv2det.weights.share_file import load_weights, save_weights
from mbv2det.weights.tensorflow import read_tensorflow

pytestmark = pytest.mark.usefixtures("one_thread")

RELEASE = "ssdlite_mobilenet_v2_coco_2018_05_09"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server in place of the Hub and of TensorFlow's, and empty caches."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    # huggingface_hub waits before it tries again.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with served() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            running.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        running.headers["X-Repo-Commit"] = COMMIT
        yield running


def stop(server):
    server.shutdown()
    server.server_close()


def refusal(read, source):
    with pytest.raises(ConfigError) as error:
        read(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def state_of(weights):
    return load_network(weights)[0].state_dict()


def all_equal(state, expected):
    assert state.keys() == expected.keys()
    return all(torch.equal(state[name], tensor) for name, tensor in expected.items())


# Releases


def trained_ssdlite():
    """Variables of a detector for COCO's 90 ids, of values that a trained one could have."""
    variables, generator = ssdlite(91), np.random.default_rng(0)
    for name, array in variables.items():
        value = generator.normal(0, 0.05, array.shape)
        is_scale = name.endswith(("gamma", "moving_variance"))
        variables[name] = (value + is_scale).astype(np.float32)
    return variables


def written_release(folder, variables):
    """Writes an archive with the files of the published one; returns its path."""
    files = folder / "files"
    files.mkdir()
    write_checkpoint(files / "model.ckpt", variables)
    write_frozen_graph(files / "frozen_inference_graph.pb", variables)
    (files / "pipeline.config").write_text("model { ssd { num_classes: 90 } }")
    return write_release(folder / f"{RELEASE}.tar.gz", files)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The variables of a detector, and its archive."""
    variables = trained_ssdlite()
    return variables, written_release(tmp_path_factory.mktemp("release"), variables)


def publish(server, monkeypatch, archive):
    """Serves an archive under the release's name."""
    content = archive.read_bytes()
    server.files[f"/{archive.name}"] = content
    checksum = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(RELEASES, RELEASE, f"{server.address}/{archive.name}#sha256={checksum}")


def test_one_command_imports_a_published_detector(server, release, tmp_path, monkeypatch):
    variables, archive = release
    publish(server, monkeypatch, archive)
    server.cuts = [100_000]
    out = tmp_path / "detector.safetensors"
    done = run_command("import_weights", "tf", RELEASE, "--out", out)
    assert f"downloading {server.address}/{RELEASE}.tar.gz" in done.stderr
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-"]
    np.savez(tmp_path / "variables.npz", **variables)
    expected = read_tensorflow(str(tmp_path / "variables.npz"))
    state, info = load_weights(out)
    assert info == expected.info
    assert all_equal(state, state_of(expected))
    stop(server)
    again = run_command("import_weights", "tf", RELEASE.removesuffix("_2018_05_09"), "--out", out)
    assert "downloading" not in again.stderr


@pytest.mark.slow  # the checksums of 18 MB in Python
def test_the_real_detectors_tensors_arrive_through_an_archive(
    server, real_weights, tmp_path, monkeypatch
):
    source = real_weights("ssdlite_voc_tf.npz")
    with np.load(source) as content:
        publish(server, monkeypatch, written_release(tmp_path, dict(content)))
    out = tmp_path / "detector.safetensors"
    run_command("import_weights", "tf", RELEASE, "--out", out)
    expected = read_tensorflow(str(source))
    assert all_equal(load_weights(out)[0], state_of(expected))
    assert load_weights(out)[1] == expected.info


@pytest.mark.slow
def test_a_training_starts_from_a_published_detector(server, release, tmp_path, monkeypatch):
    variables, archive = release
    publish(server, monkeypatch, archive)
    done = run_command(
        "train", write_config(tmp_path, num_train=8, num_val=2), f"--weights={RELEASE}",
        "--data.image_size=[96,128]", "--trainer.max_epochs=1", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false", "--optim.lr=1e-9", "--optim.warmup_steps=0",
    )  # fmt: skip
    assert f"weights: {RELEASE}" in done.stderr
    assert "weights: left out the slots of 10 unused COCO ids" in done.stderr
    run = tmp_path / "runs/tiny/1"
    assert f"weights: {RELEASE}" in (run / "config.yaml").read_text()
    # At such a rate nothing moves.
    state, info = load_weights(run / "best.safetensors")
    kernel = variables["FeatureExtractor/MobilenetV2/Conv/weights"].transpose(3, 2, 0, 1)
    trained = state["backbone.layers.layer_1.conv.weight"].numpy()
    np.testing.assert_allclose(trained, kernel, rtol=0, atol=1e-6)
    assert "ellipse" in info.label_maps["detection"].names


def test_an_archive_on_this_machine_needs_no_import(server, release):
    predictor = mbv2det.load(release[1])
    assert len(predictor.info.label_maps["detection"]) == 80
    assert all_equal(predictor.model.state_dict(), state_of(read_model(release[1])))
    assert server.requests == []


def test_without_a_connection_the_line_says_where_a_release_is(server, tmp_path):
    stop(server)
    done = run_command(
        "import_weights", "tf", f"{server.address}/{RELEASE}.tar.gz",
        "--out", tmp_path / "out.safetensors", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert f"error: {server.address}/{RELEASE}.tar.gz: cannot be downloaded (" in error
    assert error.endswith(f"import_weights FORMAT {RELEASE}.tar.gz")


def test_the_table_names_archives_by_their_files():
    assert release_address("ssdlite_mobilenet_v2_coco") == release_address(RELEASE)
    assert release_address("mobilenet_v2_1.0_224").partition("#")[0].endswith("_1.0_224.tgz")
    assert release_address("deeplabv3_mnv2_pascal_trainval").endswith("_2018_01_29.tar.gz")
    assert release_address("ssdlite") is None
    for address in RELEASES.values():
        assert address.startswith("https://")
        _, mark, checksum = address.partition("#sha256=")
        assert len(bytes.fromhex(checksum)) == (32 if mark else 0)


def test_a_name_that_is_almost_a_release_is_asked_about():
    message = refusal(read_model, "ssdlite_mobilenetv2_coco_2018_05_09")
    assert message.endswith(f"expected a file, found none; did you mean {RELEASE}?")


def test_import_asks_about_such_a_name_too():
    message = refusal(read_tensorflow, "deeplabv3_mnv2_pascal_train_val_2018_01_29")
    assert message.endswith("; did you mean deeplabv3_mnv2_pascal_trainval_2018_01_29?")


# Addresses


def test_weights_of_this_toolkit_come_from_an_address(server, tmp_path):
    info = info_of(DETECTION)
    save_weights(tmp_path / "w.safetensors", network_of(info).state_dict(), info)
    server.files["/w.safetensors"] = (tmp_path / "w.safetensors").read_bytes()
    predictor = mbv2det.load(f"{server.address}/w.safetensors")
    assert all_equal(predictor.model.state_dict(), network_of(info).state_dict())


def test_a_backbone_comes_from_an_address(server, tmp_path):
    from torchvision.models import mobilenet_v2

    state = randomise(mobilenet_v2(width_mult=0.2, num_classes=7)).state_dict()
    torch.save(state, tmp_path / "net.pth")
    server.files["/net.pth"] = (tmp_path / "net.pth").read_bytes()
    weights = read_backbone(f"{server.address}/net.pth")
    assert weights.info.model.backbone.width_mult == 0.2
    assert all_equal(weights.tensors, state)


# The Hub


def upload(server, repository, folder, revision="main"):
    for path in folder.iterdir():
        server.files[f"/{repository}/resolve/{revision}/{path.name}"] = path.read_bytes()


@pytest.fixture
def ours(server, tmp_path):
    """A repository that `push_to_hub` filled: me/detector."""
    info = info_of(DETECTION)
    folder = tmp_path / "ours"
    mbv2det.deploy.predictor.Predictor.of_model(network_of(info), info).save_pretrained(folder)
    upload(server, "me/detector", folder)
    return network_of(info).state_dict(), info


@pytest.fixture
def theirs(server, tmp_path):
    """A repository of transformers' classifier: google/mobilenet."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(
        depth_multiplier=0.35, num_labels=3, id2label={0: "a", 1: "b", 2: "c"}
    )
    network = randomise(transformers.MobileNetV2ForImageClassification(config))
    network.save_pretrained(tmp_path / "theirs")
    upload(server, "google/mobilenet", tmp_path / "theirs")
    return tmp_path / "theirs"


def test_a_repository_of_this_toolkit_is_loaded_by_name(ours, server):
    state, info = ours
    for source in ("me/detector", "me/detector@main"):
        weights = read_model(source)
        assert weights.source == source
        assert weights.info == info
        assert all_equal(weights.tensors, state)
    assert all_equal(mbv2det.load("me/detector").model.state_dict(), state)
    assert load_weights(weights_file("me/detector"))[1] == info
    weights = [path for path, _ in server.requests if path.endswith("model.safetensors")]
    assert len(weights) == 1


def test_a_revision_of_a_repository_is_loaded(ours, server, tmp_path):
    upload(server, "me/old", tmp_path / "ours", revision="v1")
    assert all_equal(read_model("me/old@v1").tensors, ours[0])


def test_import_hf_takes_repositories_of_both_kinds(ours, theirs, tmp_path):
    out, local = tmp_path / "out.safetensors", tmp_path / "local.safetensors"
    run_command("import_weights", "hf", "me/detector", "--out", out)
    assert all_equal(load_weights(out)[0], ours[0])
    run_command("import_weights", "hf", "google/mobilenet", "--out", out)
    run_command("import_weights", "hf", theirs, "--out", local)
    assert all_equal(load_weights(out)[0], load_weights(local)[0])
    assert load_weights(out)[1] == load_weights(local)[1]
    assert load_weights(out)[1].label_maps["classification"].names == ("a", "b", "c")


@pytest.mark.usefixtures("theirs")
def test_a_classifier_of_the_hub_is_a_backbone():
    weights = read_backbone("google/mobilenet")
    assert weights.info.model.backbone.padding == "same"
    assert weights.source == "google/mobilenet"


@pytest.mark.usefixtures("theirs")
def test_the_cache_serves_without_a_connection(server):
    expected = read_model("google/mobilenet")
    stop(server)
    assert all_equal(read_model("google/mobilenet").tensors, expected.tensors)


@pytest.mark.usefixtures("theirs")
def test_settings_missing_without_a_connection_are_not_assumed(server, tmp_path):
    server.files.pop("/google/mobilenet/resolve/main/model.safetensors")
    server.files["/google/mobilenet/resolve/main/preprocessor_config.json"] = b"{}"
    refusal(read_model, "google/mobilenet")
    (cached,) = tmp_path.glob("hub/**/preprocessor_config.json")
    cached.unlink()
    stop(server)
    assert "the repository of the Hub cannot be downloaded (" in (
        refusal(read_model, "google/mobilenet")
    )


def test_without_a_connection_the_line_says_what_to_do_by_hand(server, capfd):
    stop(server)
    message = refusal(read_model, "google/mobilenet")
    assert f"model.safetensors of {server.address}/google/mobilenet elsewhere and give their" in (
        message
    )
    assert message.endswith("--weights=FOLDER, or import_weights hf FOLDER")
    assert "Retrying" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("RepoNotFound", "found no such file and no such repository; a private one"),
        ("RevisionNotFound", "found no such file and a repository without this revision"),
        ("EntryNotFound", "expected model.safetensors or pytorch_model.bin in the repository"),
    ],
)
def test_repositories_without_weights_are_refused(code, expected, server):
    server.error_code = code
    assert expected in refusal(read_model, "google/mobilenet")


@pytest.mark.parametrize(
    "source",
    ["runs/best.safetensors", "a/b/c", "./name", "/name", "run/model.ckpt", "name", "../x"],
)
def test_paths_are_not_looked_for_on_the_hub(source, server):
    refusal(read_model, source)
    assert server.requests == []


def test_a_folder_of_this_machine_is_not_looked_for_on_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    refusal(read_model, "run/model")
    assert server.requests == []
