"""The rule by which weights are averaged helps runs of 100 steps and of 100,000."""

import pytest
import torch

from mbv2det.config import OptimConfig
from mbv2det.training.callbacks import ramped_average


def errors(steps, decay, simulated=None):
    """Distance from the optimum, at 0, of the last weights of a run and of their average.

    The weights are those of 50 runs. They start at 1, approach 0 in a fifth of the steps, and are
    disturbed by noise of 0.1, as by batches of different images.

    Args:
        steps: Number of steps of the run.
        decay: Final decay.
        simulated: Number of steps at the end of the run that are simulated; all by default.
    """
    generator = torch.Generator().manual_seed(0)
    averaged = [torch.ones(50)]
    for step in range(steps - (simulated or steps), steps):
        current = [2.0 ** (-50 * step / steps) + 0.1 * torch.randn(50, generator=generator)]
        ramped_average(averaged, current, torch.tensor(step), decay)
    return current[0].square().mean().sqrt(), averaged[0].square().mean().sqrt()


@pytest.mark.parametrize("decay", [0.998, OptimConfig.ema_decay])
@pytest.mark.parametrize("steps", [100, 300, 1_000])
def test_the_average_of_a_run_is_nearer_to_the_optimum_than_its_last_weights(steps, decay):
    last, average = errors(steps, decay)
    assert average < 0.5 * last


def test_the_average_of_a_long_run_is_nearer_to_the_optimum_than_its_last_weights():
    last, average = errors(100_000, decay=0.998, simulated=3_000)
    assert average < 0.1 * last


def test_a_decay_without_the_ramp_would_harm_a_short_run():
    """Checks that the tests above can fail: a constant decay keeps the initial weights."""
    averaged = 1.0
    for step in range(100):
        averaged += (2.0 ** (-50 * step / 100) - averaged) * (1 - OptimConfig.ema_decay)
    assert averaged > 0.9
