import numpy as np
import pytest
import torch
from torch import nn

from mbv2det.segmentation.multi_scale_flip import MultiScaleFlip, scaled_size
from mbv2det.segmentation.outputs import SegmentationOutputs
from mbv2det.segmentation.resample import resample


class Sampler(nn.Module):
    """A model whose logits are mixtures of the colours of every eighth pixel.

    Unless asymmetric, it gives the mirrored outputs for a mirrored image.
    """

    def __init__(self, stride=8, gain=4.0, asymmetric=False):
        super().__init__()
        self.stride = stride
        generator = torch.Generator().manual_seed(0)
        self.mix = gain * torch.randn(4, 3, generator=generator)
        self.asymmetric = asymmetric
        self.calls = []
        self.detection = object()

    def forward(self, images):
        self.calls.append((images.shape[2], images.shape[3]))
        colours = images[..., :: self.stride, :: self.stride].float() / 255
        logits = torch.einsum("lc,bchw->blhw", self.mix, colours)
        if self.asymmetric:
            logits = logits * torch.linspace(0, 2, logits.shape[-1])
        rows, columns = (torch.arange(n) * float(self.stride) for n in logits.shape[2:])
        outputs = SegmentationOutputs(logits, rows, columns, auxiliary=logits)
        return {"detection": self.detection, "segmentation": outputs}


def random_images(size=(33, 49), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (2, 3, *size), generator=generator, dtype=torch.uint8)


def probabilities(model, images, scales=(1.0,), flip=False):
    return MultiScaleFlip(model, scales, flip)(images)["segmentation"].logits.exp()


def unscaled_probabilities(model, images):
    outputs = model(images)["segmentation"]
    pixels = tuple(torch.arange(n, dtype=torch.float32) for n in images.shape[2:])
    return resample(outputs.logits, (outputs.rows, outputs.columns), pixels).softmax(dim=1)


def interpolated(values, rows, columns):
    """Interpolates (C, h, w) bilinearly at fractional indices, constant at the ends."""
    planes = []
    for plane in np.asarray(values):
        wide = np.array([np.interp(columns, np.arange(len(line)), line) for line in plane])
        planes.append([np.interp(rows, np.arange(len(line)), line) for line in wide.T])
    return torch.from_numpy(np.array(planes)).transpose(1, 2)


def test_unscaled_view_alone_gives_the_probabilities_of_the_model_on_the_pixels():
    model, images = Sampler(), random_images()
    outputs = MultiScaleFlip(model, [1.0])(images)["segmentation"]
    expected = unscaled_probabilities(model, images)
    torch.testing.assert_close(outputs.logits.exp(), expected)
    assert torch.equal(outputs.logits.argmax(1), expected.argmax(1))
    assert outputs.rows.tolist() == list(range(33))
    assert outputs.columns.tolist() == list(range(49))
    assert outputs.auxiliary is None


def test_mirror_image_changes_nothing_for_a_symmetric_model():
    model, images = Sampler(), random_images()
    torch.testing.assert_close(
        probabilities(model, images, flip=True), probabilities(model, images)
    )


def test_mirror_image_is_mirrored_back():
    model, images = Sampler(asymmetric=True), random_images()
    mirrored = unscaled_probabilities(model, images.flip(-1)).flip(-1)
    expected = (unscaled_probabilities(model, images) + mirrored) / 2
    torch.testing.assert_close(probabilities(model, images, flip=True), expected)


def test_average_over_scales_equals_the_same_by_hand():
    model, images = Sampler(), random_images((33, 45), seed=1)
    scaled = interpolated(images[0], np.arange(17) * 2, np.arange(23) * 2)  # corners on corners
    cells = torch.einsum("lc,chw->lhw", model.mix.double(), scaled[:, ::8, ::8] / 255)
    # Pixel y of the input is y / 2 of the view, whose cells are 8 apart.
    logits = interpolated(cells, np.arange(33) / 2 / 8, np.arange(45) / 2 / 8)
    plain = unscaled_probabilities(model, images)[0]
    expected = (plain + logits.softmax(dim=0).float()) / 2
    averaged = probabilities(model, images, scales=(0.5, 1.0))[0]
    torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)  # float32 against float64


def test_ramp_is_the_same_at_every_scale():
    # Half a pixel of misalignment would move the logits by 4 * 0.5 / 48, their mean by a third.
    model = Sampler()
    ramp = torch.linspace(0, 255, 49).expand(1, 3, 33, 49)
    averaged = probabilities(model, ramp, scales=(0.5, 1.0, 1.5), flip=True)
    torch.testing.assert_close(averaged, unscaled_probabilities(model, ramp), rtol=1e-5, atol=1e-6)


def test_views_have_the_sizes_of_the_paper_and_the_unscaled_one_is_computed_once():
    model = Sampler(stride=64)
    scales = [0.5 + 0.25 * i for i in range(6)]
    MultiScaleFlip(model, scales, flip=True)(random_images((513, 385)))
    twice = [h for h in (257, 385, 513, 641, 769, 897) for _ in range(2)]
    assert sorted(h for h, _ in model.calls) == twice
    assert {w for _, w in model.calls} == {193, 289, 385, 481, 577, 673}


def test_unscaled_view_outside_the_scales_is_used_only_by_other_tasks():
    model, images = Sampler(), random_images()
    outputs = MultiScaleFlip(model, [0.5])(images)
    assert model.calls == [(33, 49), (17, 25)]
    assert outputs["detection"] is model.detection
    assert list(outputs) == ["detection", "segmentation"]
    only_scaled = outputs["segmentation"].logits.exp()
    both = probabilities(model, images, scales=(0.5, 1.0))
    torch.testing.assert_close(2 * both - unscaled_probabilities(model, images), only_scaled)


def test_images_may_be_floats():
    model, images = Sampler(), random_images()
    torch.testing.assert_close(
        probabilities(model, images.float(), (0.75, 1.0)), probabilities(model, images, (0.75, 1.0))
    )


def test_logits_of_certain_predictions_are_finite():
    logits = MultiScaleFlip(Sampler(gain=1e5), [1.0])(random_images())["segmentation"].logits
    assert logits.isfinite().all()


def test_name_of_the_segmentation_task_can_be_set():
    class Renamed(Sampler):
        def forward(self, images):
            return {"parts": super().forward(images)["segmentation"]}

    assert list(MultiScaleFlip(Renamed(), [1.0], task="parts")(random_images())) == ["parts"]


def test_scaled_sizes_keep_the_corners_in_place():
    assert scaled_size((513, 257), 0.5) == (257, 129)
    assert scaled_size((1, 9), 1.75) == (1, 15)


@pytest.mark.parametrize("scales", [[], [1.0, 0.0]])
def test_scales_must_be_positive(scales):
    with pytest.raises(ValueError, match="scales: expected one or more positive numbers"):
        MultiScaleFlip(Sampler(), scales)
