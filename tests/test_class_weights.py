import json
import math

import numpy as np
import pytest
import runs
import torch
from safetensors import safe_open

from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.data.statistics import count_labels, count_objects
from mbv2det.detection.gfl_loss import GFLLoss
from mbv2det.detection.loss import SSDLoss, focal_loss, sigmoid_loss, softmax_loss
from mbv2det.detection.outputs import PointOutputs, SSDOutputs
from mbv2det.detection.quality_loss import quality_focal_loss, varifocal_loss
from mbv2det.errors import ConfigError
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.gfl_lite import GFLLiteConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.segmentation.loss import SegmentationLoss
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.structures import IGNORE_INDEX, BoxTargets
from mbv2det.training.class_weights import balanced_weights, named_weights

CLASSES = LabelMap.of_masks(["background", "car", "cat"])


def pixel_terms(mask, weights, **settings):
    """Loss of one image whose pixels all have the probabilities 1/4 and 3/4."""
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).repeat(len(mask), 1, 1, 1)
    outputs = SegmentationOutputs(logits, torch.zeros(1), torch.zeros(1), logits)
    loss = SegmentationLoss(class_weights=weights, **settings)
    return loss(outputs, torch.tensor(mask, dtype=torch.uint8))


def test_pixels_have_a_weighted_mean():
    mask = [[[0, 0], [0, IGNORE_INDEX]], [[1, IGNORE_INDEX], [IGNORE_INDEX, IGNORE_INDEX]]]
    terms = pixel_terms(mask, (0.5, 4.0), auxiliary_weight=1.0)
    # Three pixels of -ln(1/4) weigh 0.5, one of -ln(3/4) weighs 4.
    expected = (1.5 * math.log(4) + 4 * math.log(4 / 3)) / 5.5
    assert terms.count.item() == 5.5
    assert terms.means()["pixels"].item() == pytest.approx(expected, rel=1e-6)
    assert terms.means()["auxiliary"].item() == pytest.approx(expected, rel=1e-6)


def test_images_weigh_in_lovasz_as_their_pixels_do():
    mask = [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    terms = pixel_terms(mask, (0.5, 4.0), lovasz_weight=1.0)
    # A single label: 1 - IoU of the Lovász extension is the mean error, 3/4 and 1/4.
    expected = (2 * 0.75 + 16 * 0.25) / 18
    assert terms.means()["lovasz"].item() == pytest.approx(expected, rel=1e-6)


def test_equal_weights_of_any_size_change_no_mean_of_pixels():
    mask = [[[0, 1], [1, IGNORE_INDEX]]]
    without, with_weights = (pixel_terms(mask, weights).means() for weights in (None, (9.0, 9.0)))
    torch.testing.assert_close(with_weights, without)


def test_an_ignored_image_has_no_weight():
    terms = pixel_terms([[[IGNORE_INDEX] * 2] * 2], (0.5, 4.0))
    assert terms.count == 0
    assert terms.sums["pixels"] == 0


def one_object(label):
    boxes, labels = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[label]])
    return BoxTargets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool), torch.ones(1) > 0)


def ssd_classes(class_loss, slots, weights, label=1):
    """Class loss of one positive and three negative anchors whose logits are all zero."""
    anchors = torch.tensor([[0.0, 0, 10, 10]] + [[50.0, 50, 60, 60]] * 3)
    outputs = SSDOutputs(torch.zeros(1, 4, slots), torch.zeros(1, 4, 4), anchors)
    terms = SSDLoss(class_loss, class_weights=weights)(outputs, one_object(label))
    assert terms.count == 1
    return terms.sums["classes"].item()


@pytest.mark.parametrize(
    ("class_loss", "slots", "positive", "negative"),
    [
        (softmax_loss, 3, math.log(3), math.log(3)),
        (sigmoid_loss, 3, 3 * math.log(2), 3 * math.log(2)),
        # alpha_t (1 - p_t)^2 ln 2: 0.25 for the class of the object, 0.75 for all others.
        (focal_loss, 2, (0.25 + 0.75) / 4 * math.log(2), 2 * 0.75 / 4 * math.log(2)),
    ],
)
def test_anchors_of_an_object_weigh_as_its_class(class_loss, slots, positive, negative):
    for weights, factor in ((None, 1), ((7.0, 2.5), 2.5), ((7.0, 1.0), 1)):
        value = ssd_classes(class_loss, slots, weights)
        assert value == pytest.approx(factor * positive + 3 * negative, rel=1e-6)


@pytest.mark.parametrize("class_loss", [varifocal_loss, quality_focal_loss])
def test_points_of_an_object_weigh_as_its_class(class_loss):
    points = torch.tensor([[5.0, 5, 8, 8], [50, 50, 8, 8]])
    outputs = PointOutputs(
        torch.zeros(1, 2, 2), torch.zeros(1, 2, 4, 8), points, torch.zeros(2, dtype=torch.int64)
    )
    (plain, same, heavy), counts = zip(
        *(
            (terms.sums["classes"].item(), terms.count.item())
            for weights in (None, (9.0, 1.0), (9.0, 3.0))
            for terms in [GFLLoss(class_loss, class_weights=weights)(outputs, one_object(1))]
        ),
        strict=True,
    )
    assert same == plain
    assert len(set(counts)) == 1
    # The second point has no object: a loss of ln 2 times the focus, for each of two classes.
    background = 2 * math.log(2) * (0.75 if class_loss is varifocal_loss else 1) / 4
    assert heavy - background == pytest.approx(3 * (plain - background), rel=1e-5)


@pytest.mark.parametrize(
    "head",
    [DeepLabV3Config(), DeepLabV3LightConfig(), LRASPPConfig(), SSDLiteConfig(), GFLLiteConfig()],
    ids=lambda head: head.name,
)
def test_every_head_gives_its_loss_the_weights(head):
    assert head.class_weights == "none"
    assert head.build_loss().class_weights is None
    assert head.build_loss((1.0, 2.0)).class_weights == (1.0, 2.0)


def test_balanced_weights_of_a_hand_worked_example():
    # The three classes that occur have 100 on average: sqrt(100 / n) is 2/3, 2 and sqrt(2). That
    # of the fourth is bounded by 10. All are scaled so that the 300 weigh 300.
    weights = balanced_weights(np.array([225, 25, 50, 0]))
    scale = 300 / (225 * 2 / 3 + 25 * 2 + 50 * math.sqrt(2))
    np.testing.assert_allclose(weights, np.array([2 / 3, 2, math.sqrt(2), 10]) * scale)


def test_balanced_weights_are_bounded():
    weights = balanced_weights(np.array([10**9, 10**9, 1]))
    assert weights[2] / weights[0] == pytest.approx(10 / math.sqrt(2 / 3))
    np.testing.assert_array_equal(balanced_weights(np.zeros(2, np.int64)), 1)


def test_classes_that_are_not_named_weigh_1():
    np.testing.assert_array_equal(named_weights({"cat": 2.5}, CLASSES, "key"), [1, 1, 2.5])


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({"catt": 2.0}, "key: expected classes of the data set .* got 'catt'; did you mean 'cat'"),
        ({"cat": 0.0}, "key.cat: expected a number above 0, got 0.0"),
        ({"cat": math.inf}, "key.cat: expected a number above 0, got inf"),
        ({}, "key: expected at least one class, got none"),
    ],
)
def test_bad_weights_are_refused(configured, message):
    with pytest.raises(ConfigError, match=message):
        named_weights(configured, CLASSES, "key")


HEADS = f"{runs.DETECTION}, {runs.SEGMENTATION}"
BALANCED = [f"--heads.{task}.class_weights=balanced" for task in ("detection", "segmentation")]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(tmp_path_factory.mktemp("weights"), heads=HEADS, stride=16)


def parts_of(config, *arguments):
    return RunParts.read(SettingsParser("").parse([str(config), *arguments]))


def test_balanced_weights_are_those_of_the_training_split(config, capsys):
    parts = parts_of(config, *BALANCED)
    detection, segmentation = parts.module().tasks
    boxes, pixels = count_objects(parts.training), count_labels(parts.training)
    assert boxes.sum() == (~parts.training.objects.ignore).sum()
    assert pixels.argmax() == 0
    assert detection.box_loss.class_weights == tuple(balanced_weights(boxes))
    assert segmentation.pixel_loss.class_weights == tuple(balanced_weights(pixels))
    assert "weights of the classes: " in capsys.readouterr().err


def test_an_unknown_name_is_refused_before_the_training(config):
    with pytest.raises(ConfigError, match=r"heads\.segmentation\.class_weights: expected classes"):
        parts_of(config, "--heads.segmentation.class_weights={sun: 2}").module()


def test_names_on_the_command_line(config):
    arguments = ["--heads.segmentation.class_weights.background=0.25"]
    (_, segmentation) = parts_of(config, *arguments).module().tasks
    assert segmentation.pixel_loss.class_weights[:2] == (0.25, 1.0)


def test_weights_do_not_travel_and_a_run_with_them_resumes(config):
    first = [*BALANCED, "--trainer.max_epochs=1"]
    runs.run_command("train", config, *first)
    folder = config.parent / "runs/tiny/1"
    with safe_open(folder / "best.safetensors", "pt") as file:
        heads = json.loads(file.metadata()["mbv2det"])["model"]["heads"]
    assert heads["detection"]["name"] == "ssdlite"
    assert all("class_weights" not in head for head in heads.values())
    assert "class_weights: balanced" in (folder / "config.yaml").read_text()
    runs.run_command("train", config, *BALANCED, "--trainer.max_epochs=2", "--resume=last")
    weights = f"--weights={folder / 'best.safetensors'}"
    parts = parts_of(config, weights, "--heads.detection.class_weights=balanced")
    detection, segmentation = parts.module().tasks
    assert detection.box_loss.class_weights is not None
    assert segmentation.pixel_loss.class_weights is None
