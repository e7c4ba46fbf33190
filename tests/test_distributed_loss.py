"""N processes of batch size b train as one process of N x b."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import DETECTION, POINTS, run_command, write_config

WORKER = Path(__file__).with_name("gradient_worker.py")
# Dropout differs between processes.
HEADS = {
    "anchors": f"{DETECTION}, segmentation: {{name: deeplabv3, dropout: 0.0}}",
    "points": f"{POINTS}, segmentation: {{name: deeplabv3, dropout: 0.0}}",
}


def gradients(config, weights, out, devices):
    arguments = [
        f"--weights={weights}",
        f"--trainer.devices={devices}",
        f"--data.batch_size={4 // devices}",
        "--optim.freeze_norm=all",  # statistics of a batch differ between processes
        "--trainer.max_epochs=1",
        f"--trainer.default_root_dir={out.parent / out.stem}",
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
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module", params=HEADS)
def one_and_two(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    heads = HEADS[request.param]
    config = write_config(folder, num_train=8, num_val=2, heads=heads, stride=16)
    run_command("train", config, "--trainer.max_epochs=1")
    weights = folder / "runs/tiny/1/best.safetensors"
    return [gradients(config, weights, folder / f"{n}.pt", n) for n in (1, 2)]


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(one_and_two):
    one, two = one_and_two
    assert one.keys() == two.keys()
    assert len(one) > 70
    for name, gradient in one.items():
        # Sums in another order: relative to the largest entry of each tensor.
        scale = gradient.abs().max().item()
        torch.testing.assert_close(two[name], gradient, rtol=0, atol=1e-4 * scale, msg=name)


def test_images_have_different_numbers_of_matched_anchors(one_and_two):
    """Checks that dividing by the count of a single process would fail the other tests."""
    one, _ = one_and_two
    assert any(gradient.abs().max() > 1e-3 for gradient in one.values())
