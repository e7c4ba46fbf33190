"""Transforms of albumentations that a configuration lists (`augment.transforms`)."""

import random
import re
from inspect import isclass, signature

import albumentations as A
import numpy as np
import pytest
import runs

from mbv2det.augment_config import AugmentConfig
from mbv2det.data.augment import Augment
from mbv2det.data.transform_trial import moves_boxes
from mbv2det.errors import ConfigError
from mbv2det.geometry import Frame
from mbv2det.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessor, PreprocessSpec
from mbv2det.structures import IGNORE_INDEX, Instances, Sample, SampleKey

SIZE = (60, 80)
PREPROCESSOR = Preprocessor(PreprocessSpec(SIZE, "stretch", IMAGENET_MEAN, IMAGENET_STD))
STILL = {"flip": 0.0, "photometric": 0.0, "expand": 0.0, "iou_crop": False}
BOXES = np.array([[4, 6, 24, 26], [30, 10, 70, 44], [8, 40, 22, 56]], np.float32)

SQUARE = {"height": 60, "width": 60}
# Arguments of the transforms that cannot do without.
ARGUMENTS = {
    "AtLeastOneBBoxRandomCrop": SQUARE, "CenterCrop": SQUARE, "CropNonEmptyMaskIfExists": SQUARE,
    "RandomCrop": SQUARE, "RandomSizedBBoxSafeCrop": SQUARE, "Resize": SQUARE,
    "RandomResizedCrop": {"size": [60, 60]},
    "RandomSizedCrop": {"size": [60, 60], "min_max_height": [40, 60]},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 5},
    "Crop": {"x_max": 50, "y_max": 50}, "CropAndPad": {"percent": 0.1}, "Pad": {"padding": 20},
    "LongestMaxSize": {"max_size": 100}, "SmallestMaxSize": {"max_size": 100},
}  # fmt: skip
# Of all that albumentations has, those that no training of boxes and masks can use, and why.
REFUSED = {
    "BasicTransform": "NotImplementedError", "DualTransform": "cannot move",
    "ImageOnlyTransform": "NotImplementedError", "Transform3D": "cannot move",
    "CenterCrop3D": "Field required", "Pad3D": "Field required",
    "PadIfNeeded3D": "min_zyx", "RandomCrop3D": "Field required", "ToTensor3D": "cannot move",
    "CoarseDropout3D": "cannot move images", "CubicSymmetry": "cannot move images",
    "ToTensorV2": "cannot move boxes", "OverlayElements": "cannot move boxes",
    "FDA": "fda_metadata", "HistogramMatching": "hm_metadata", "Mosaic": "mosaic_metadata",
    "PixelDistributionAdaptation": "pda_metadata", "TextImage": "font_path",
    "RandomCropNearBBox": "cropping_bbox", "RandomGridShuffle": "moves the pixels alone",
    "FromFloat": "8 bits", "ToFloat": "8 bits", "Normalize": "8 bits",
}  # fmt: skip
BROKEN = ("Morphological",)  # with OpenCV 5, on masks
NAMES = sorted(
    name
    for name, value in vars(A).items()
    if isclass(value) and issubclass(value, A.BasicTransform)
)


def augment_of(*entries, annotation=("boxes", "masks"), seed=0):
    config = AugmentConfig(**STILL, transforms=entries)
    return Augment(config, PREPROCESSOR, seed, annotation)


def entry(name, **arguments):
    return {"class_path": f"albumentations.{name}", "init_args": arguments}


def scene(epoch=0, index=0, *, ignore=(False, True, False)):
    """Returns noise with three objects of labels 7, 8 and 9, which the mask shows as 1, 2 and 3."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    for i, (left, top, right, bottom) in enumerate(BOXES.astype(int)):
        mask[top:bottom, left:right] = i + 1
    instances = Instances(BOXES, np.array([7, 8, 9]), np.array(ignore))
    return Sample(SampleKey(epoch, index), image, Frame(SIZE), instances, mask)


def same(first, second):
    return (
        np.array_equal(first.image, second.image)
        and np.array_equal(first.mask, second.mask)
        and np.array_equal(first.instances.boxes, second.instances.boxes)
        and np.array_equal(first.instances.labels, second.instances.labels)
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # transforms that recommend others
@pytest.mark.parametrize("name", NAMES)
def test_every_transform_of_the_library_works_or_is_refused(name):
    listed = entry(name, **ARGUMENTS.get(name, {}), p=1.0)
    if "p" not in signature(getattr(A, name)).parameters:
        del listed["init_args"]["p"]
    if name in REFUSED:
        with pytest.raises(ConfigError, match=r"^augment\.transforms\[0\]") as raised:
            augment_of(listed)
        assert REFUSED[name] in str(raised.value)
        assert "\n" not in str(raised.value)
        return
    try:
        augment = augment_of(listed)
    except ConfigError:
        assert name in BROKEN
        return
    for epoch in range(3):
        random.seed(epoch)
        np.random.seed(epoch)  # noqa: NPY002  # what a transform must not depend on
        first = augment(scene(epoch))
        random.seed(epoch + 1)
        np.random.seed(epoch + 1)  # noqa: NPY002
        assert same(first, augment(scene(epoch)))
        kept = first.instances
        assert set(np.unique(first.mask)) <= {0, 1, 2, 3, IGNORE_INDEX}
        assert (kept.ignore == (kept.labels == 8)).all()
        assert (kept.boxes[:, 2:] > kept.boxes[:, :2]).all()


@pytest.mark.parametrize(
    "name", ["Affine", "Perspective", "Rotate", "SafeRotate", "Transpose", "D4"]
)
def test_boxes_labels_and_masks_move_together(name):
    augment = augment_of(entry(name, p=1.0))
    compared = 0
    for epoch in range(20):
        moved = augment(scene(epoch))
        for box, label in zip(moved.instances.boxes, moved.instances.labels, strict=True):
            rows, columns = np.nonzero(moved.mask == label - 6)
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            # The mask is resampled to whole pixels, and a sharp corner covers few of them.
            np.testing.assert_allclose(box, around, atol=4)
            compared += 1
    assert compared > 40


def test_pixels_beyond_the_image_have_the_fill_colour_and_are_ignored():
    moved = augment_of(entry("Affine", translate_px={"x": 30, "y": 0}, p=1.0))(scene())
    assert (moved.mask[:, :30] == IGNORE_INDEX).all()
    assert (moved.image[:, :29] == PREPROCESSOR.spec.fill).all()
    # What the user sets is used.
    shift = {"translate_px": {"x": 30, "y": 0}, "fill": 9, "fill_mask": 3, "p": 1.0}
    moved = augment_of(entry("Affine", **shift))(scene())
    assert (moved.mask[:, :30] == 3).all()
    assert (moved.image[:, :29] == 9).all()


def test_draws_are_a_function_of_seed_epoch_and_index():
    noise = entry("GaussNoise", p=1.0)
    drawn = {
        augment_of(noise, seed=seed)(scene(epoch, index)).image.tobytes()
        for seed in range(3) for epoch in range(3) for index in range(3)
    }  # fmt: skip
    assert len(drawn) == 27
    used = augment_of(noise)
    for index in range(4):
        used(scene(0, index))
    assert same(used(scene(1, 2)), augment_of(noise)(scene(1, 2)))


def test_two_transforms_of_the_same_kind_draw_different_numbers():
    # Were their generators equal, a mirror of p = 0.5 twice would never leave an image mirrored.
    augment = augment_of(*[entry("HorizontalFlip", p=0.5)] * 2)
    mirrored = sum(augment(scene(epoch)).mask[30, 10] != 0 for epoch in range(60))
    original = scene().mask[30, 10] != 0
    changed = 60 - mirrored if original else mirrored
    # Half of 60 with a standard deviation of 3.9; four of them.
    assert abs(changed - 30) < 16


def test_without_transforms_nothing_changes():
    plain = Augment(AugmentConfig(), PREPROCESSOR, 3)
    with_none = Augment(AugmentConfig(transforms=()), PREPROCESSOR, 3)
    assert same(plain(scene(1)), with_none(scene(1)))


def test_choices_and_sequences_hold_transforms():
    choice = entry("OneOf", transforms=[
        entry("GaussianBlur"), entry("Sequential", transforms=[entry("VerticalFlip", p=1.0)], p=1.0)
    ], p=1.0)  # fmt: skip
    augment = augment_of(choice)
    tops = {float(augment(scene(epoch)).instances.boxes[0, 1]) for epoch in range(30)}
    # The first object starts 6 pixels from the top, and 34 from it when mirrored: 60 - 26.
    assert tops == {6.0, 34.0}


class MovesPixelsOnly(A.DualTransform):
    """A user's transform that shifts the image and has no rule for boxes and masks."""

    _targets = (A.core.type_definitions.Targets.IMAGE,)

    def apply(self, img, **params):
        return np.roll(img, 20, axis=1)


class ForgetsBoxes(MovesPixelsOnly):
    """One that claims to move boxes, and leaves them where they are."""

    _targets = A.core.type_definitions.ALL_TARGETS[:3]

    def apply_to_mask(self, mask, **params):
        return np.roll(mask, mask.shape[1] // 2, axis=1)

    def apply_to_bboxes(self, bboxes, **params):
        return bboxes


class Brighter(A.ImageOnlyTransform):
    """One of colours, which need not move anything."""

    def apply(self, img, **params):
        return np.maximum(img, 100)


def own(name):
    return {"class_path": f"{__name__}.{name}", "init_args": {"p": 1.0}}


def test_transforms_of_ones_own_are_used_and_tried_out():
    assert augment_of(own("Brighter"))(scene()).image.min() == 100
    with pytest.raises(ConfigError, match="MovesPixelsOnly, which cannot move boxes and masks"):
        augment_of(own("MovesPixelsOnly"))
    with pytest.raises(ConfigError, match="ForgetsBoxes, which moves the pixels alone"):
        augment_of(own("ForgetsBoxes"))
    # A task without boxes does not need them to move.
    augment_of(own("ForgetsBoxes"), annotation=("masks",))


@pytest.mark.parametrize("annotation", [("boxes",), ("masks",), ("boxes", "masks")])
def test_only_what_the_tasks_need_has_to_move(annotation):
    def refused(name):
        try:
            augment_of(entry(name, p=1.0), annotation=annotation)
        except ConfigError:
            return True
        return False

    assert refused("OverlayElements")
    assert refused("RandomGridShuffle") == ("boxes" in annotation)
    assert refused("MaskDropout") == (annotation == ("boxes",))
    assert not refused("Rotate")


def test_a_transform_that_mixes_labels_is_refused():
    linear = entry("Rotate", mask_interpolation=1, p=1.0)
    with pytest.raises(ConfigError, match="keeps the labels of masks"):
        augment_of(linear)


def test_a_failure_on_one_image_names_its_size():
    augment = augment_of(entry("RandomCrop", height=100, width=100, p=1.0))
    with pytest.raises(ConfigError, match=r"60x80 pixels \(height x width\): Crop size") as raised:
        augment(scene())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"init_args": {}}, "[0]: expected {class_path:"),
        ({"class_path": "albumentations.Rotate", "args": {}}, "[0]: expected {class_path:"),
        (entry("GausNoise"), "[0].class_path: expected a transform of albumentations, got "
         "albumentations.GausNoise; did you mean albumentations.GaussNoise?"),
        ({"class_path": "GaussNoise"}, "did you mean albumentations.GaussNoise?"),
        ({"class_path": "nowhere.Noise"}, "got nowhere.Noise (No module named 'nowhere')"),
        ({"class_path": "pathlib.Path"}, "expected a transform of albumentations, got pathlib"),
        ({"class_path": 3}, "[0].class_path: expected a transform"),
        (entry("Compose", transforms=[]), "expected albumentations.Sequential"),
        (entry("GaussNoise", std_rnge=[0, 1]), "[0].init_args.std_rnge: GaussNoise has no such "
         "argument; did you mean std_range?"),
        (entry("GaussNoise", std_range=[2, 3]), "[0].init_args.std_range: "),
        (entry("GaussNoise", std_range="loud"), "[0].init_args.std_range: "),
        (entry("HorizontalFlip", p="often"), "[0]"),
        (entry("Rotate", p=1.5), "[0].init_args.p: Input should be less than or equal to 1"),
        ({"class_path": "albumentations.Rotate", "init_args": [1]}, "expected arguments by name"),
        (entry("OneOf", transforms=[entry("Rotate"), entry("Rotte")]),
         "[0].init_args.transforms[1].class_path: "),
        (entry("OneOf", transforms=[entry("Blur"), entry("RandomGridShuffle")]),
         "[0].init_args.transforms[1]: expected a transform that moves boxes"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_one_line_that_names_the_setting(wrong, message):
    with pytest.raises(ConfigError) as raised:
        augment_of(wrong)
    assert str(raised.value).startswith("augment.transforms[0]")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_trial_does_not_change_the_probability():
    augment = augment_of(entry("InvertImg", p=0.0))
    np.testing.assert_array_equal(augment(scene()).image, scene().image)


def test_every_transform_that_needs_arguments_is_given_them():
    parameters = {name: signature(getattr(A, name)).parameters.values() for name in NAMES}
    needing = {n for n, all_ in parameters.items() if any(p.default is p.empty for p in all_)}
    assert needing <= set(ARGUMENTS) | set(REFUSED)


def test_colours_do_not_count_as_moving_boxes():
    assert not moves_boxes(A.GaussNoise())
    assert moves_boxes(A.Rotate())


def test_train_applies_them_and_refuses_wrong_ones_in_one_line(tmp_path):
    config = runs.write_config(tmp_path, num_train=4, num_val=2)
    text = "[{class_path: albumentations.Rotate, init_args: {limit: 30}}]"
    runs.run_command("train", config, f"--augment.transforms={text}", "--trainer.max_epochs=1")
    saved = (tmp_path / "runs/tiny/1/config.yaml").read_text()
    assert "class_path: albumentations.Rotate" in saved
    for wrong in ("[{class_path: albumentations.Rotte}]", "[rotate]"):
        done = runs.run_command("train", config, f"--augment.transforms={wrong}", check=False)
        assert done.returncode == 2
        (line,) = [x for x in done.stderr.splitlines() if "error: " in x]
        assert re.search(r"augment\.transforms", line)
    assert not (tmp_path / "runs/tiny/2").exists()
