"""N processes of batch size b train as one process of N x b."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import DETECTION, POINTS, run_command, write_config
from teachers import write_teacher

WORKER = Path(__file__).with_name("gradient_worker.py")
# Dropout differs between processes.
_LOVASZ = "segmentation: {name: deeplabv3, dropout: 0.0, lovasz_weight: 1.0}"
_WEIGHTED = "class_weights: balanced}"
HEADS = {
    "anchors": f"{DETECTION}, {_LOVASZ}",
    "points": f"{POINTS[:-1]}, {_WEIGHTED}, {_LOVASZ[:-1]}, {_WEIGHTED}",
}


def gradients(config, weights, out, devices, *settings):
    arguments = [
        f"--weights={weights}",
        f"--trainer.devices={devices}",
        f"--data.batch_size={6 // devices}",
        "--optim.freeze_norm=all",  # statistics of a batch differ between processes
        "--trainer.max_epochs=1",
        f"--trainer.default_root_dir={out.parent / out.stem}",
        *settings,
    ]
    done = subprocess.run(
        [sys.executable, WORKER, config, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIENTS": str(out)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for setting in settings:  # it has taken effect
        assert f"{setting.removeprefix('--').split('=')[0]}: " in done.stderr
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module", params=HEADS)
def by_devices(request, tmp_path_factory):
    """Returns the gradients of one step of six images, by number of processes."""
    folder = tmp_path_factory.mktemp("gradients")
    heads = HEADS[request.param]
    config = write_config(folder, num_train=8, num_val=2, heads=heads, stride=16)
    run_command("train", config, "--trainer.max_epochs=1")
    weights = folder / "runs/tiny/1/best.safetensors"
    return {n: gradients(config, weights, folder / f"{n}.pt", n) for n in (1, 2, 3)}


@pytest.mark.parametrize("devices", [2, 3])
def test_several_processes_have_the_gradients_of_one_with_the_whole_batch(by_devices, devices):
    one, several = by_devices[1], by_devices[devices]
    assert one.keys() == several.keys()
    assert len(one) > 70
    for name, gradient in one.items():
        # Sums in another order: relative to the largest entry of each tensor.
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(several[name], gradient, rtol=0, atol=1e-5 * scale, msg=name)


def test_images_have_different_numbers_of_matched_anchors(by_devices):
    """Checks that dividing by the count of a single process would fail the other tests."""
    assert any(gradient.abs().max() > 1e-3 for gradient in by_devices[1].values())


@pytest.mark.slow
@pytest.mark.parametrize("heads", HEADS)
def test_two_processes_with_a_teacher_have_the_gradients_of_one(heads, tmp_path):
    config = write_config(tmp_path, num_train=8, num_val=2, heads=HEADS[heads], stride=16)
    student = write_teacher(tmp_path / "student.safetensors", config)
    teacher = write_teacher(tmp_path / "teacher.safetensors", config, "--backbone.width_mult=0.5")
    taught = f"--distill.weights={teacher}"
    one, two = (gradients(config, student, tmp_path / f"{n}.pt", n, taught) for n in (1, 2))
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(two[name], gradient, rtol=0, atol=1e-5 * scale, msg=name)
