"""Every configuration parses and builds the network that its header describes."""

from dataclasses import replace

import pytest
import torch
from runs import ROOT

from mbv2det.build import build_model, build_preprocess, build_tasks
from mbv2det.cli.settings import SettingsParser
from mbv2det.labels import VOC_NAMES, LabelMap

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LABEL_MAPS = {
    "detection": LabelMap(tuple(f"class {i}" for i in range(80)), tuple(range(80))),
    "segmentation": LabelMap.of_masks(("background", *VOC_NAMES)),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_configuration_builds_and_predicts(path):
    config = SettingsParser("").parse([str(path)]).config
    spec = build_preprocess(config.data)
    model = build_model(config.model(), spec, LABEL_MAPS).eval()
    images = torch.zeros(1, 3, *spec.size, dtype=torch.uint8)
    with torch.no_grad():
        outputs = model(images)
    for task in build_tasks(config.model(), config.eval, LABEL_MAPS):
        assert task.name in outputs


def test_the_published_detector_has_the_published_size():
    config = SettingsParser("").parse([str(ROOT / "configs/ssdlite_coco.yaml")]).config
    model = build_model(config.model(), build_preprocess(config.data), LABEL_MAPS)
    assert sum(p.numel() for p in model.parameters()) == 4_337_013
    assert config.data.size == (320, 320)


@pytest.mark.parametrize(
    "arguments",
    [
        ["deeplabv3_voc_paper"],
        ["deeplabv3_voc", "--heads.segmentation.name=deeplabv3"],
        ["deeplabv3_voc_paper", "--heads.segmentation.name=deeplabv3"],
    ],
    ids=["paper", "own data", "named"],
)
def test_the_published_segmenter_has_the_published_size(arguments):
    config = SettingsParser("").parse(arguments).config
    model = build_model(config.model(), build_preprocess(config.data), LABEL_MAPS)
    assert sum(p.numel() for p in model.parameters()) == 2_113_557
    assert config.data.size == (513, 513)


def test_your_own_masks_are_learned_by_the_light_head_with_balanced_classes():
    config = SettingsParser("").parse(["deeplabv3_voc"]).config
    model = build_model(config.model(), build_preprocess(config.data), LABEL_MAPS)
    assert sum(p.numel() for p in model.parameters()) == 2_580_066
    assert config.heads["segmentation"].class_weights == "balanced"


def test_the_paper_configuration_has_the_published_recipe():
    """TensorFlow's DeepLab, `train.py`: its defaults, and the batch of its VOC results."""
    config = SettingsParser("").parse(["deeplabv3_voc_paper"]).config
    optim, head = config.optim, config.heads["segmentation"]
    assert (optim.name, optim.lr, optim.momentum, optim.schedule) == ("sgd", 0.007, 0.9, "poly")
    assert (optim.weight_decay, optim.backbone_lr_mult) == (4e-5, 1.0)
    assert (head.aspp, head.decoder, head.auxiliary_weight) == ("pool", False, 0.0)
    assert head.build_loss().terms == ("pixels",)
    assert config.data.batch_size == 16
    assert (config.augment.scale, config.augment.flip) == ((0.5, 2.0), 0.5)
    assert config.augment.photometric == config.augment.expand == 0


@pytest.mark.parametrize(
    ("setting", "parameters"),
    [("name=deeplabv3_light", 2_580_066), ("name=lraspp", 1_897_290), ("aspp=full", 4_523_541)],
)
def test_another_head_is_one_setting_away(setting, parameters):
    arguments = ["deeplabv3_voc_paper", f"--heads.segmentation.{setting}"]
    config = SettingsParser("").parse(arguments).config
    model = build_model(config.model(), build_preprocess(config.data), LABEL_MAPS)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_joint_model_shares_one_backbone():
    config = SettingsParser("").parse([str(ROOT / "configs/joint_voc.yaml")]).config
    model = build_model(config.model(), build_preprocess(config.data), LABEL_MAPS)
    detector = replace(config, heads={"detection": config.heads["detection"]})
    segmenter = replace(config, heads={"segmentation": config.heads["segmentation"]})
    single = [
        build_model(c.model(), build_preprocess(c.data), LABEL_MAPS) for c in (detector, segmenter)
    ]
    backbones = [sum(p.numel() for p in m.backbone.parameters()) for m in (model, *single)]
    assert backbones[0] == max(backbones)
    names = [set(m.state_dict()) for m in single]
    assert set(model.state_dict()) == names[0] | names[1]


def test_a_saved_configuration_equals_the_original(tmp_path):
    settings = SettingsParser("").parse([str(CONFIGS[0]), "--data.image_size=[320,512]"])
    again = tmp_path / "config.yaml"
    again.write_text(settings.yaml())
    assert SettingsParser("").parse([str(again)]).config == settings.config


def test_the_command_line_wins_over_the_file():
    settings = SettingsParser("").parse(
        [str(CONFIGS[0]), "--optim.lr=0.5", "--trainer.max_epochs=1"]
    )
    assert settings.config.optim.lr == 0.5
    assert settings.trainer["max_epochs"] == 1
    assert settings.given == {"optim.lr", "trainer.max_epochs"}
