import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from mbv2det.config import OptimConfig
from mbv2det.training.optim import (
    RMSpropTF,
    make_optimizer,
    make_schedule,
    parameter_groups,
    scaled_to_batch,
)

GRADIENTS = np.random.default_rng(0).normal(size=(6, 5))


class Network(nn.Module):
    """A parameter of every kind, in the backbone and outside of it."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
        self.pointwise = nn.Conv2d(4, 2, 1)
        self.frozen = nn.Conv2d(4, 4, 1, bias=False).requires_grad_(False)


def settings_of(network, config):
    """Returns (learning rate, weight decay) by parameter name."""
    names = {param: name for name, param in network.named_parameters()}
    return {
        names[param]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, config)
        for param in group["params"]
    }


def tensorflow_rmsprop(start, gradients, lr, decay, momentum, eps):
    """Computes TensorFlow's documented rule, from ms = 1 and mom = 0.

    ms <- decay ms + (1 - decay) g^2; mom <- momentum mom + lr g / sqrt(ms + eps); w <- w - mom
    """
    w, ms, mom = start.copy(), np.ones_like(start), np.zeros_like(start)
    for g in gradients:
        ms = decay * ms + (1 - decay) * g**2
        mom = momentum * mom + lr * g / np.sqrt(ms + eps)
        w = w - mom
    return w


@pytest.mark.parametrize("eps", [1.0, 1e-3])
def test_rmsprop_equals_tensorflows_rule(eps):
    start = np.linspace(-1, 1, 5)
    weight = nn.Parameter(torch.tensor(start))
    optimizer = RMSpropTF([weight], lr=0.1, decay=0.8, momentum=0.7, eps=eps)
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    expected = tensorflow_rmsprop(start, GRADIENTS, 0.1, 0.8, 0.7, eps)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)  # float64


def test_first_rmsprop_step_by_hand():
    weight = nn.Parameter(torch.tensor([2.0]))
    weight.grad = torch.tensor([3.0])
    RMSpropTF([weight], lr=0.5, decay=0.9, momentum=0.9, eps=1.0).step()
    # ms = 0.9 * 1 + 0.1 * 9 = 1.8; step = 0.5 * 3 / sqrt(1.8 + 1) = 0.8964
    assert weight.item() == pytest.approx(2 - 1.5 / math.sqrt(2.8), rel=1e-6)  # float32


def test_rmsprop_momentum_accumulates_steps_scaled_by_the_learning_rate():
    weight = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    optimizer = RMSpropTF([weight], lr=0.5, momentum=0.9)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    first = weight.item()
    optimizer.param_groups[0]["lr"] = 0.0
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert weight.item() == pytest.approx(first * 1.9, rel=1e-12)  # float64


def test_rmsprop_weight_decay_is_an_l2_gradient():
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    decayed, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    decayed.grad = torch.tensor([0.5, 0.5], dtype=torch.float64)
    plain.grad = decayed.grad + 0.1 * start
    RMSpropTF([decayed], lr=0.5, weight_decay=0.1).step()
    RMSpropTF([plain], lr=0.5).step()
    torch.testing.assert_close(decayed, plain, rtol=1e-12, atol=0)  # float64


def test_rmsprop_does_not_change_parameters_without_gradient():
    weight = nn.Parameter(torch.ones(2))
    RMSpropTF([weight], lr=1.0).step()
    assert weight.tolist() == [1.0, 1.0]


def test_rmsprop_resumes_from_its_state():
    once = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = RMSpropTF([once], lr=0.1)
    for i, gradient in enumerate(GRADIENTS):
        if i == 3:
            resumed = nn.Parameter(once.detach().clone())
            second = RMSpropTF([resumed], lr=0.1)
            second.load_state_dict(deepcopy(optimizer.state_dict()))
        once.grad = torch.tensor(gradient)
        optimizer.step()
    for gradient in GRADIENTS[3:]:
        resumed.grad = torch.tensor(gradient)
        second.step()
    assert torch.equal(once, resumed)


def test_only_full_kernels_decay():
    settings = settings_of(Network(), OptimConfig(weight_decay=0.1))
    assert {name for name, (_, decay) in settings.items() if decay} == {
        "backbone.0.weight",
        "pointwise.weight",
    }
    assert {decay for _, decay in settings.values()} == {0.0, 0.1}


def test_backbone_has_its_own_learning_rate():
    found = settings_of(Network(), OptimConfig(lr=0.5, backbone_lr_mult=0.1))
    for name, (lr, _) in found.items():
        assert lr == (0.05 if name.startswith("backbone.") else 0.5)


def test_frozen_parameters_are_in_no_group_and_others_in_one():
    network = Network()
    groups = parameter_groups(network, OptimConfig())
    listed = [id(param) for group in groups for param in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in network.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", "SGD"), ("rmsprop", "RMSpropTF"), ("adamw", "AdamW")]
)
def test_optimizer_by_name_keeps_the_groups(name, kind):
    optimizer = make_optimizer(Network(), OptimConfig(name=name, weight_decay=0.1))
    assert type(optimizer).__name__ == kind
    assert sorted({group["weight_decay"] for group in optimizer.param_groups}) == [0.0, 0.1]


def test_optimizer_takes_its_settings():
    config = OptimConfig(name="rmsprop", momentum=0.7, rms_decay=0.6, rms_eps=0.5)
    group = make_optimizer(Network(), config).param_groups[0]
    assert (group["momentum"], group["decay"], group["eps"]) == (0.7, 0.6, 0.5)
    group = make_optimizer(Network(), OptimConfig(momentum=0.7)).param_groups[0]
    assert group["momentum"] == 0.7


def factor_of(total_steps, **config):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return make_schedule(optimizer, OptimConfig(**config), total_steps).lr_lambdas[0]


def test_warm_up_rises_in_a_straight_line():
    factor = factor_of(1000, schedule="constant", warmup_steps=4)
    # (step + 1) / 5, then 1
    assert [factor(step) for step in range(6)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]


def test_warm_up_takes_at_most_a_tenth_of_the_run():
    factor = factor_of(50, schedule="constant", warmup_steps=500)
    # 50 // 10 = 5 steps: (step + 1) / 6
    assert factor(4) == pytest.approx(5 / 6)
    assert factor(5) == 1.0


def test_cosine_goes_from_one_through_a_half_to_zero():
    factor = factor_of(1100, schedule="cosine", warmup_steps=100)
    assert factor(100) == 1.0
    # cos(0) = 1, cos(pi / 4), cos(pi / 2) = 0, cos(pi) = -1 at 0, 250, 500 and 1000 of 1000 steps
    assert factor(350) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert factor(600) == pytest.approx(0.5)
    assert factor(1100) == pytest.approx(0.0, abs=1e-12)


def test_cosine_is_zero_after_the_end():
    assert factor_of(100, schedule="cosine")(150) == pytest.approx(0.0, abs=1e-12)


def test_cosine_never_rises_after_the_warm_up():
    factor = factor_of(200, schedule="cosine", warmup_steps=10)
    values = [factor(step) for step in range(10, 201)]
    assert values == sorted(values, reverse=True)


def test_constant_schedule_does_not_depend_on_the_number_of_steps():
    factor = factor_of(math.inf, schedule="constant", warmup_steps=9)
    assert [factor(0), factor(9), factor(10**6)] == [0.1, 1.0, 1.0]


def test_schedule_is_a_function_of_the_step_alone():
    factor = factor_of(300, schedule="cosine")
    forward = [factor(step) for step in range(300)]
    backward = [factor(step) for step in reversed(range(300))][::-1]
    assert forward == backward


def test_schedule_scales_every_group():
    optimizer = make_optimizer(Network(), OptimConfig(lr=1.0, backbone_lr_mult=0.1))
    schedule = make_schedule(optimizer, OptimConfig(lr=1.0, warmup_steps=1), 100)
    # The first of one warm-up step: half of each group's rate.
    assert {round(lr, 9) for lr in schedule.get_last_lr()} == {0.5, 0.05}


@pytest.mark.parametrize(
    ("reference", "num_images", "lr"), [(None, 96, 0.004), (24, 24, 0.004), (24, 96, 0.016)]
)
def test_the_rate_grows_with_the_images_of_a_step(reference, num_images, lr):
    config = OptimConfig(lr=0.004, reference_batch=reference)
    assert scaled_to_batch(config, num_images).lr == pytest.approx(lr)
