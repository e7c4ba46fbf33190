import pytest
import runs
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

from mbv2det.backbones.feature import Feature
from mbv2det.build import build_model
from mbv2det.config import OptimConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.training.freezing import frozen_parts
from mbv2det.training.optim import parameter_groups

BACKBONES = ("mobilenet_v2", "mobilenet_v1", "resnet50")
MAPS = {"detection": LabelMap(("a", "b"), (1, 2))}


def model_of(name="mobilenet_v2"):
    width = {} if name == "resnet50" else {"width_mult": 0.35}
    config = ModelConfig(
        BackboneConfig(name, **width), {"detection": SSDLiteConfig(name="ssdlite")}
    )
    return build_model(config, PreprocessSpec((64, 64)), MAPS)


def frozen_names(model, backbone, norms="none", loaded=None):
    """Names of the parameters that `frozen_parts` returns."""
    loaded = model.state_dict().keys() if loaded is None else loaded
    kept = {id(p) for m in frozen_parts(model, backbone, norms, loaded) for p in m.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in kept}


@pytest.mark.parametrize("name", BACKBONES)
def test_each_choice_freezes_what_it_names(name):
    model = model_of(name)
    all_names = {n for n, _ in model.named_parameters()}
    in_backbone = {n for n in all_names if n.startswith("backbone.")}
    assert frozen_names(model, "none") == set()
    assert frozen_names(model, "all") == in_backbone
    norms, stages = frozen_names(model, "norm"), frozen_names(model, "stages")
    # Vectors of the backbone are scales and shifts of its norms: its convolutions have no bias.
    assert norms == {n for n in in_backbone if model.get_parameter(n).ndim == 1}
    assert norms < stages < in_backbone
    convolutions = {n.split(".")[2] for n in stages if model.get_parameter(n).ndim == 4}
    layers = list(model.backbone.layers)
    assert [layer in convolutions for layer in layers] == [
        model.backbone.feature_specs[Feature(layer)].stride <= 4 for layer in layers
    ]
    assert 0 < len(convolutions) < len(layers)


def test_norms_of_heads_are_frozen_by_the_setting_of_all_norms():
    model = model_of()
    frozen = frozen_names(model, "none", "all")
    assert frozen > frozen_names(model, "norm")
    assert any(name.startswith("heads.") for name in frozen)


def test_parts_that_were_not_loaded_are_trained():
    model = model_of()
    loaded = {n for n in model.state_dict() if not n.startswith("backbone.layers.layer_1.")}
    for choice in ("norm", "stages", "all"):
        frozen = frozen_names(model, choice, loaded=loaded)
        assert frozen
        assert not any(name.startswith("backbone.layers.layer_1.") for name in frozen)


def test_frozen_parameters_are_not_optimised():
    model = model_of()
    for part in frozen_parts(model, "all", "none", model.state_dict().keys()):
        part.requires_grad_(False)
    groups = parameter_groups(model, OptimConfig())
    optimised = {id(p) for group in groups for p in group["params"]}
    assert optimised == {
        id(p) for n, p in model.named_parameters() if not n.startswith("backbone.")
    }


@pytest.mark.parametrize("choice", ["stages", "all"])
def test_a_training_changes_nothing_that_is_frozen(tmp_path, choice):
    config = runs.write_config(tmp_path, num_train=4, num_val=2)
    weights = tmp_path / "backbone.pth"
    torch.save(mobilenet_v2(width_mult=0.35).state_dict(), weights)
    runs.run_command(
        "train", config, f"--backbone.freeze={choice}", f"--backbone.weights={weights}",
        "--trainer.max_epochs=1", "--optim.ema_decay=0",
    )  # fmt: skip
    run = tmp_path / "runs/tiny/1"
    trained = load_file(run / "best.safetensors")
    start = torch.load(weights, weights_only=True)

    def tensor(layer, part):
        names = [n for n in trained if n.startswith(f"backbone.layers.{layer}.")]
        return trained[next(n for n in names if part(n))]

    stem = tensor("layer_1", lambda n: trained[n].ndim == 4)
    assert torch.equal(stem, start["features.0.0.weight"])
    mean = tensor("layer_1", lambda n: n.endswith("running_mean"))
    assert torch.equal(mean, start["features.0.1.running_mean"])
    late = tensor("layer_17", lambda n: "project" in n and trained[n].ndim == 4)
    assert torch.equal(late, start["features.16.conv.2.weight"]) == (choice == "all")
