"""Random networks and images, for the tests that compare two networks."""

import torch
from torch import nn


def randomise(module, seed=1, gain=1.0):
    """Draws convolutions, norms and running statistics at random; returns it in evaluation mode.

    The standard deviation of a convolution is `gain` divided by the root of its fan in: a gain of 1
    keeps the scale of the signal, and the root of 2 makes up for the half that a ReLU removes.
    """
    generator = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2, generator=generator)
            m.running_var.uniform_(0.5, 2, generator=generator)
            m.weight.data.uniform_(0.5, 1.5, generator=generator)
            m.bias.data.normal_(0, 0.2, generator=generator)
        elif isinstance(m, nn.Conv2d):
            m.weight.data.normal_(0, gain * m.weight[0].numel() ** -0.5, generator=generator)
            if m.bias is not None:
                m.bias.data.normal_(generator=generator)
    return module.eval()


def random_images(height, width, count=1):
    """Images as after normalisation: standard normal."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
