"""The commands that look for a learning rate and for the largest batch."""

import numpy as np
import pytest
import runs
import torch
from PIL import Image
from torch import nn

from mbv2det.cli.run_parts import RunParts
from mbv2det.cli.settings import SettingsParser
from mbv2det.training.batch_size import largest_by_estimate, largest_that_fits, resized


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.write_config(tmp_path_factory.mktemp("run"), num_train=8, num_val=2)


def steps_up_to(limit, tried):
    def step(size):
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError

    return step


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 31, 32, 100, 1000])
def test_the_largest_batch_is_found_within_an_eighth(limit):
    tried = []
    found = largest_that_fits(steps_up_to(limit, tried))
    assert found <= limit < found + max(1, found // 8) + 1
    assert len(tried) < 20


def test_no_batch_and_every_batch():
    assert largest_that_fits(steps_up_to(0, [])) == 0
    assert largest_that_fits(steps_up_to(10**9, []), most=64) == 64


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def step(size):
        raise ValueError("a fault of the network")

    with pytest.raises(ValueError, match="a fault of the network"):
        largest_that_fits(step)


def test_the_estimate_grows_with_the_memory_and_shrinks_with_the_image():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())

    def found(side, free):
        return largest_by_estimate(lambda n: network(torch.zeros(n, 3, side, side)).sum(), free)

    small, large = found(32, 2**27), found(32, 2**28)
    # Twice the memory holds twice the batch; the weights are small beside it.
    assert large == pytest.approx(2 * small, rel=0.02)
    # Four times the pixels.
    assert found(64, 2**28) == pytest.approx(large / 4, rel=0.2)
    # 8 channels of 30 x 30 floats, twice, and the image are kept: 60 kB, of which 2.5 times.
    assert large == pytest.approx(
        0.8 * 2**28 / (2.5 * 4 * (3 * 32**2 + 8 * (30**2 + 28**2))), rel=0.3
    )
    assert found(32, 1000) == 0


def test_a_resized_batch_repeats_its_images(config):
    batch = next(
        iter(RunParts.read(SettingsParser("").parse([str(config)])).data().train_dataloader())
    )
    larger = resized(batch, 6)
    assert torch.equal(larger.images[4:], batch.images[:2])
    assert torch.equal(larger.boxes.labels[4:], batch.boxes.labels[:2])
    assert len(larger) == len(larger.frames) == 6
    assert torch.equal(resized(batch, 3).images, batch.images[:3])


def test_find_batch_size_prints_a_setting(config):
    done = runs.run_command("find_batch_size", config)
    # Tiny images: all 8 of the split fit.
    assert done.stdout.strip() == "largest batch: --data.batch_size=8"
    assert "memory of cpu, 32-true: estimated" in done.stderr


def test_find_lr_draws_a_curve_and_prints_a_setting(config, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "lr.png"
    done = runs.run_command("find_lr", config, "--steps=20", f"--out={out}")
    rate = float(done.stdout.strip().removeprefix("suggestion: --optim.lr="))
    assert 1e-5 < rate < 1
    with Image.open(out) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--steps=5", "--steps: expected at least 20, got 5"),
        ("--min-lr=1", "--min-lr, --max-lr: expected two ascending rates above 0, got 1 and 1"),
        ("--min-lr=-1", "expected two ascending rates"),
        ("--out=curve.jpg", "--out: expected a PNG file in an existing folder, got curve.jpg"),
        ("--out=nowhere/lr.png", "--out: expected a PNG file in an existing folder"),
    ],
)
def test_wrong_options_of_find_lr_are_one_line(config, argument, message):
    done = runs.run_command("find_lr", config, argument, check=False)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if "error: " in x]
    assert message in line
