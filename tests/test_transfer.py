"""A network that starts from another's weights: what both have by name is copied, the rest new."""

import numpy as np
import pytest
import torch
from networks import random_images, randomise

from mbv2det.build import build_model
from mbv2det.deploy.predictor import Predictor
from mbv2det.heads.deeplab_v3 import DeepLabV3Config
from mbv2det.heads.deeplab_v3_light import DeepLabV3LightConfig
from mbv2det.heads.gfl_lite import GFLLiteConfig
from mbv2det.heads.lraspp import LRASPPConfig
from mbv2det.heads.ssdlite import SSDLiteConfig
from mbv2det.labels import LabelMap
from mbv2det.model_config import BackboneConfig, EvalConfig, ModelConfig
from mbv2det.preprocess import PreprocessSpec
from mbv2det.weights.header import WeightsInfo
from mbv2det.weights.source import MismatchError, WeightsSource
from mbv2det.weights.transfer import transfer

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONE = BackboneConfig(width_mult=0.1, scale_last_layer=True)
SIZE = (64, 96)

SSDLITE = {"detection": SSDLiteConfig()}
SSD = {"detection": SSDLiteConfig(name="ssd")}
SIGMOID = {"detection": SSDLiteConfig(class_loss="sigmoid")}
FOCAL = {"detection": SSDLiteConfig(class_loss="focal")}
POINTS = {"detection": GFLLiteConfig(channels=16)}
DEEPLAB = {"segmentation": DeepLabV3Config(channels=16)}
AUXILIARY = {"segmentation": DeepLabV3Config(channels=16, auxiliary_weight=0.4)}
LIGHT = {"segmentation": DeepLabV3LightConfig(channels=16)}
LRASPP = {"segmentation": LRASPPConfig(channels=16)}
BOTH = SSDLITE | DEEPLAB

ANIMALS = ("cat", "dog", "tv", "cow")
# The dog is gone, the zebra is new, and VOC has another name for the set.
OTHERS = ("cow", "zebra", "tvmonitor", "cat")
OLD_OF_NEW = {0: 3, 2: 2, 3: 0}
ZEBRA = 1


def info_of(heads, names, backbone=BACKBONE):
    label_maps = {
        "detection": LabelMap(tuple(names), tuple(range(1, len(names) + 1))),
        "segmentation": LabelMap.of_masks(("background", *names)),
    }
    return WeightsInfo(
        ModelConfig(backbone, heads),
        PreprocessSpec(SIZE),
        {task: label_maps[task] for task in heads},
        EvalConfig(score_threshold=0.0),
    )


def built(info):
    return build_model(info.model, info.preprocess, info.label_maps)


def weights_of(heads, names=ANIMALS, backbone=BACKBONE):
    """Returns a network of random weights, and these weights."""
    info = info_of(heads, names, backbone)
    model = randomise(built(info))
    return model, WeightsSource(
        "w.safetensors", model.state_dict(), info, name_of=lambda name: name
    )


def start(source, heads, names, backbone=BACKBONE):
    """Returns the network with transferred weights, its initial tensors, and the transfer."""
    info = info_of(heads, names, backbone)
    model = randomise(built(info), seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return model, before, transfer(source, model, info.model, info.label_maps)


def outputs_of(model, task):
    with torch.no_grad():
        features = model.backbone(random_images(*SIZE))
        return model.heads[task](features, SIZE)


ALL = {
    "ssdlite": SSDLITE, "ssd": SSD, "focal": FOCAL, "points": POINTS, "deeplabv3": DEEPLAB,
    "auxiliary": AUXILIARY, "light": LIGHT, "lraspp": LRASPP, "both": BOTH,
}  # fmt: skip
every_head = pytest.mark.parametrize("heads", ALL.values(), ids=ALL)


@every_head
def test_for_the_same_classes_every_tensor_is_copied(heads):
    stored, source = weights_of(heads)
    ours, _, summary = start(source, heads, ANIMALS)
    state = ours.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stored.state_dict().items())
    assert summary.transferred == state.keys()
    assert not [line for line in summary.lines if "newly" in line or "left out" in line]


# Other classes


@pytest.mark.parametrize(
    ("stored", "ours"),
    [(SSDLITE, SSDLITE), (SSD, SSD), (FOCAL, FOCAL), (SSDLITE, FOCAL), (FOCAL, SSDLITE),
     (SSDLITE, SIGMOID)],
    ids=["ssdlite", "ssd", "focal", "softmax to focal", "focal to softmax", "softmax to sigmoid"],
)  # fmt: skip
def test_boxes_of_shared_classes_get_their_logits_at_every_anchor(stored, ours):
    old, source = weights_of(stored)
    new, _, _ = start(source, ours, OTHERS)
    outputs, expected = outputs_of(new.eval(), "detection"), outputs_of(old, "detection")
    first, old_first = (int(net.heads["detection"].slots.background) for net in (new, old))
    assert outputs.logits.shape[-1] == first + len(OTHERS)
    for label, old_label in OLD_OF_NEW.items():
        logits = expected.logits[..., old_first + old_label]
        torch.testing.assert_close(outputs.logits[..., first + label], logits, rtol=1e-5, atol=1e-5)
        assert logits.std() > 0.1  # they differ from anchor to anchor
    if first and old_first:  # the slot of background is copied
        torch.testing.assert_close(
            outputs.logits[..., 0], expected.logits[..., 0], rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(outputs.deltas, expected.deltas, rtol=1e-5, atol=1e-5)


def test_points_of_shared_classes_get_their_logits():
    old, source = weights_of(POINTS)
    new, _, _ = start(source, POINTS, OTHERS)
    outputs, expected = outputs_of(new.eval(), "detection"), outputs_of(old, "detection")
    for label, old_label in OLD_OF_NEW.items():
        ours, stored = outputs.logits[..., label], expected.logits[..., old_label]
        torch.testing.assert_close(ours, stored, rtol=1e-5, atol=1e-5)
        assert stored.std() > 0.01  # they differ from point to point
    torch.testing.assert_close(outputs.sides, expected.sides, rtol=1e-5, atol=1e-5)


def test_another_detection_method_starts_with_the_backbone_alone():
    stored, source = weights_of(SSDLITE)
    ours, before, summary = start(source, POINTS, ANIMALS)
    state, stored_state = ours.state_dict(), stored.state_dict()
    backbone = {name for name in state if name.startswith("backbone.")}
    assert len(backbone) > 200
    assert all(torch.equal(state[name], stored_state[name]) for name in backbone)
    assert all(torch.equal(state[name], before[name]) for name in state.keys() - backbone)
    assert summary.transferred == backbone


@pytest.mark.parametrize(
    "heads", [DEEPLAB, AUXILIARY, LIGHT, LRASPP], ids=["plain", "aux", "light", "lraspp"]
)
def test_masks_of_shared_classes_get_their_logits_at_every_cell(heads):
    old, source = weights_of(heads)
    new, _, _ = start(source, heads, OTHERS)
    outputs, expected = outputs_of(new.eval(), "segmentation"), outputs_of(old, "segmentation")
    pairs = [(outputs.logits, expected.logits)]
    pairs += [(outputs.auxiliary, expected.auxiliary)] if heads is AUXILIARY else []
    for logits, stored in pairs:
        assert logits.shape[1] == 1 + len(OTHERS)
        for label, old_label in {0: 0, **{n + 1: o + 1 for n, o in OLD_OF_NEW.items()}}.items():
            # The convolutions add up in an order that the number of rows decides.
            torch.testing.assert_close(logits[:, label], stored[:, old_label], rtol=0, atol=1e-5)


def class_tensors(model, task):
    """Weights and biases that have a row of every class, by name."""
    layers = model.heads[task].class_layers()
    modules = [name for name, module in model.named_modules() if any(module is m for m in layers)]
    state = model.state_dict()
    return {
        f"{name}.{part}": state[f"{name}.{part}"] for name in modules for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("heads", "task", "first"),
    [(SSDLITE, "detection", 1), (SSD, "detection", 1), (FOCAL, "detection", 0),
     (AUXILIARY, "segmentation", 1), (LIGHT, "segmentation", 1), (LRASPP, "segmentation", 1)],
    ids=["ssdlite", "ssd", "focal", "auxiliary", "light", "lraspp"],
)  # fmt: skip
def test_rows_of_new_classes_keep_their_initial_values(heads, task, first):
    _, source = weights_of(heads)
    new, before, summary = start(source, heads, OTHERS)
    tensors = class_tensors(new, task)
    assert len(tensors) == {"detection": 12, "segmentation": 4}[task]
    for name, tensor in tensors.items():
        by_anchor, fresh, old = (
            rows.unflatten(0, (-1, first + 4))
            for rows in (tensor, before[name], source.tensors[name])
        )
        assert torch.equal(by_anchor[:, first + ZEBRA], fresh[:, first + ZEBRA])
        for label, old_label in OLD_OF_NEW.items():
            assert torch.equal(by_anchor[:, first + label], old[:, first + old_label])
    state = new.state_dict()
    rest = state.keys() - tensors.keys()
    assert all(torch.equal(state[name], source.tensors[name]) for name in rest)
    assert summary.transferred == rest


def test_background_is_new_where_the_weights_have_no_slot_for_it():
    _, source = weights_of(FOCAL)
    new, before, summary = start(source, SSDLITE, ANIMALS)
    for name, tensor in class_tensors(new, "detection").items():
        rows, fresh = tensor.unflatten(0, (-1, 5)), before[name].unflatten(0, (-1, 5))
        assert torch.equal(rows[:, 0], fresh[:, 0])
        assert name not in summary.transferred
    assert "  heads.detection: 1 classes newly initialised: background" in summary.lines


def test_predictions_do_not_depend_on_the_order_of_the_classes():
    names = ("dog", "tv", "cat", "cow")
    old, source = weights_of(BOTH)
    new, _, _ = start(source, BOTH, names)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    predictions, expected = (
        Predictor.of_model(net, info_of(BOTH, classes))([image])[0]
        for net, classes in ((new, names), (old, ANIMALS))
    )
    assert len(expected.detection.boxes) > 10
    assert by_name(predictions.detection, names) == by_name(expected.detection, ANIMALS)
    old_labels = torch.tensor([0, *(1 + ANIMALS.index(name) for name in names)])
    labels = old_labels[predictions.segmentation.labels.long()]
    assert torch.equal(labels, expected.segmentation.labels.long())


def by_name(detections, names):
    """Returns (name, score, box) in the order of scores, rounded to float32's precision."""
    columns = (detections.labels, detections.scores, detections.boxes)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    rounded = [(names[k], round(s, 4), [round(v, 2) for v in box]) for k, s, box in rows]
    return sorted(rounded, key=lambda row: (-row[1], row))


# The summary


def test_the_summary_names_copied_new_and_left_out_classes():
    _, source = weights_of(SSDLITE)
    new, _, summary = start(source, SSDLITE, OTHERS)
    counts = [len([n for n in new.state_dict() if n.startswith(p)]) for p in ("backbone", "heads")]
    assert summary.lines == [
        "weights: w.safetensors",
        f"  backbone: {counts[0]} tensors copied",
        f"  heads.detection: {counts[1] - 12} tensors copied, 12 class by class",
        "  heads.detection: 4 of 5 classes copied by name: background, cow, tvmonitor, cat",
        "  heads.detection: 1 classes newly initialised: zebra",
        "  heads.detection: 1 classes of the weights left out: dog",
    ]


def test_long_lists_of_classes_are_shortened():
    names = [f"class {k}" for k in range(30)]
    _, source = weights_of(DEEPLAB, names)
    _, _, summary = start(source, DEEPLAB, names[:20])
    assert (
        "  heads.segmentation: 21 of 21 classes copied by name: background, class 0, class 1, "
        "class 2, class 3, class 4, class 5, class 6, class 7, class 8, ..."
    ) in summary.lines


def test_a_head_that_the_weights_lack_is_newly_initialised():
    stored, source = weights_of(SSDLITE)
    new, before, summary = start(source, BOTH, ANIMALS)
    state = new.state_dict()
    fresh = {name for name in state if name.startswith("heads.segmentation.")}
    assert "  heads.segmentation: not in the weights; newly initialised" in summary.lines
    assert all(torch.equal(state[name], before[name]) for name in fresh)
    assert summary.transferred == state.keys() - fresh
    assert summary.transferred == stored.state_dict().keys()


def test_a_head_that_is_not_configured_is_left_out():
    _, source = weights_of(BOTH)
    new, _, summary = start(source, DEEPLAB, ANIMALS)
    assert "  heads.detection: in the weights, but not configured; left out" in summary.lines
    assert list(new.heads) == ["segmentation"]
    assert summary.transferred == new.state_dict().keys()


def test_layers_after_the_last_of_the_weights_are_newly_initialised():
    stored, source = weights_of(DEEPLAB)  # ends with layer 18
    new, before, summary = start(source, SSDLITE, ANIMALS)
    state = new.state_dict()
    last = {name for name in state if name.startswith("backbone.layers.layer_19.")}
    copied = [name for name in stored.state_dict() if name.startswith("backbone.")]
    assert f"  backbone: {len(copied)} tensors copied; newly initialised: layer_19" in summary.lines
    assert len(last) == 6
    assert all(torch.equal(state[name], before[name]) for name in last)
    assert summary.transferred == set(copied)


def test_an_auxiliary_head_that_the_weights_lack_is_newly_initialised():
    _, source = weights_of(DEEPLAB)
    new, before, summary = start(source, AUXILIARY, ANIMALS)
    state = new.state_dict()
    fresh = {name for name in state if ".auxiliary." in name}
    assert all(torch.equal(state[name], before[name]) for name in fresh)
    assert summary.transferred == state.keys() - fresh
    (line,) = [line for line in summary.lines if "tensors newly initialised" in line]
    assert line.startswith(
        f"  heads.segmentation: {len(fresh)} tensors newly initialised: auxiliary.0."
    )


def test_class_layers_of_other_channels_are_newly_initialised():
    _, source = weights_of(DEEPLAB)
    wider = {"segmentation": DeepLabV3Config(channels=24)}
    new, before, summary = start(source, wider, ANIMALS)
    for name, tensor in class_tensors(new, "segmentation").items():
        assert torch.equal(tensor, before[name])
        assert name not in summary.transferred
    assert "  heads.segmentation: all 5 classes newly initialised" in summary.lines
    assert not [line for line in summary.lines if "by name" in line]


def test_predictors_of_another_kind_are_newly_initialised():
    _, source = weights_of(SSDLITE)
    new, before, summary = start(source, SSD, ANIMALS)
    assert all(torch.equal(t, before[n]) for n, t in class_tensors(new, "detection").items())
    assert "  heads.detection: all 5 classes newly initialised" in summary.lines


def test_another_backbone_is_refused():
    _, source = weights_of(SSDLITE, backbone=BackboneConfig(width_mult=0.35))
    with pytest.raises(MismatchError, match=r"^w\.safetensors: .* wrong shape; first: ") as e:
        start(source, SSDLITE, ANIMALS)
    assert {row.problem for row in e.value.rows} == {"wrong shape"}
    assert all(row.name.startswith("backbone.layers.") for row in e.value.rows)
