"""Share files and checkpoints: written, read back, and refused where they are damaged."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from unsafe_pickle import RunsCode

import mbv2det
from mbv2det.build import build_model
from mbv2det.deploy.predictor import load_model
from mbv2det.errors import ConfigError
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.share_file import (
    ORIGIN,
    encode_origin,
    load_origin,
    load_weights,
    save_weights,
)

INFO = WeightsInfo(
    model=ModelConfig(
        BackboneConfig(width_mult=0.35), {"detection": SSDLiteConfig(class_loss="focal")}
    ),
    preprocess=PreprocessSpec((96, 128), "fit", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)),
    label_maps={"detection": LabelMap(("cat", "dog"), (7, 90))},
    eval=EvalConfig(nms_iou=0.45),
    metrics={"detection": {"AP": 0.5, "per_class": {"cat": None, "dog": 0.5}}},
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = build_model(INFO.model, INFO.preprocess, INFO.label_maps)
    path = tmp_path / "w.safetensors"
    save_weights(path, model.state_dict(), INFO)
    return model, path


def test_a_share_file_contains_tensors_and_header(saved):
    model, path = saved
    state, info = load_weights(path)
    assert info == INFO
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not path.with_name("w.safetensors.part").exists()


def test_load_returns_a_predictor_with_the_models_outputs(saved):
    model, path = saved
    predictor = mbv2det.load(path)
    images = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.eval()(images)["detection"].logits
        assert torch.equal(predictor.model(images)["detection"].logits, expected)


def test_a_checkpoint_of_a_run_loads_like_a_share_file(saved, tmp_path):
    model, path = saved
    state, info = load_weights(path)
    checkpoint = tmp_path / "last.ckpt"
    header = json.dumps({"format": 1, **_header(path)})
    prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": prefixed, "mbv2det": header}, checkpoint)
    again, same = load_weights(checkpoint)
    assert same == info
    assert again.keys() == model.state_dict().keys()


def _header(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["mbv2det"])


def test_a_truncated_file_is_refused(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="expected a safetensors file, got a damaged one"):
        load_weights(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a file, found none"):
        load_weights(tmp_path / "none.safetensors")


def test_tensors_without_our_header_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(
        ConfigError, match="expected a file of this toolkit, got tensors without its header"
    ):
        load_weights(tmp_path / "a.safetensors")


def test_the_key_of_label_maps_in_files_is_labels(saved):
    assert _header(saved[1])["labels"] == {"detection": {"names": ["cat", "dog"], "ids": [7, 90]}}


def test_a_checkpoint_has_the_origin_of_its_tensors(tmp_path):
    origin = encode_origin({"a", "b"}, {"b"})
    torch.save({ORIGIN: origin}, tmp_path / "last.ckpt")
    assert load_origin(tmp_path / "last.ckpt") == ({"a", "b"}, {"b"})
    torch.save({}, tmp_path / "other.ckpt")  # of a run that started from no file
    assert load_origin(tmp_path / "other.ckpt") == (frozenset(), frozenset())


def test_another_format_is_refused(tmp_path):
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"mbv2det": '{"format": 99}'}
    )
    with pytest.raises(ConfigError, match="expected format 3, got 99"):
        load_weights(tmp_path / "a.safetensors")


STEM = "backbone.layers.layer_1.conv.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(STEM), rf"got 1 missing; first: {STEM} \(expected \(16, 3, 3, 3\)"),
        (lambda s: s.update(extra=torch.zeros(1)), "got 1 unexpected; first: extra"),
        (lambda s: s.update({STEM: torch.zeros(2)}), r"expected \(16, 3, 3, 3\), got \(2,\)"),
        (lambda s: s.update({STEM: s[STEM].int()}), "expected floating point, got int32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, message):
    model, path = saved
    state = dict(model.state_dict())
    change(state)
    save_weights(path, state, INFO)
    with pytest.raises(ConfigError, match=message):
        load_model(path)


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path):
    witness = tmp_path / "witness"
    torch.save({"state_dict": RunsCode(witness)}, tmp_path / "trap.ckpt")
    with pytest.raises(ConfigError, match="expected a file of tensors"):
        load_weights(tmp_path / "trap.ckpt")
    assert not witness.exists()
