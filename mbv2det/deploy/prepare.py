"""Prepares a trained network for prediction: batch norm folded into convolutions, precision."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mbv2det.backbones.layers import ConvBNAct
from mbv2det.heads.shared_conv import SharedConv
from mbv2det.model import MultiTaskModel


class Cast(nn.Module):
    """Converts a tensor to another type.

    Args:
        dtype: Type of the result.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tensor in the other type."""
        return x.to(self.dtype)


def prepared(model: MultiTaskModel, dtype: torch.dtype = torch.float32) -> MultiTaskModel:
    """Returns a copy of a network that computes the same in fewer operations.

    The batch norm of every `ConvBNAct` is folded into its convolution, in float32, and that of each
    level of a `SharedConv` into a convolution of its own. Backbone and heads then compute in
    `dtype`; normalisation of the images, decoding and postprocessing stay in float32.

    Args:
        model: Trained network; it stays as it is.
        dtype: Type of weights and features.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    for block in network.modules():
        if isinstance(block, ConvBNAct) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.add_module("norm", nn.Identity())
        elif isinstance(block, SharedConv) and isinstance(block.conv, nn.Conv2d):
            norms = [norm for norm in block.norms if isinstance(norm, nn.BatchNorm2d)]
            block.norms = nn.ModuleList(fuse_conv_bn_eval(block.conv, norm) for norm in norms)
            block.conv = nn.Identity()
    if dtype != torch.float32:
        network.backbone.to(dtype)
        network.heads.to(dtype)
        network.normalize = nn.Sequential(network.normalize, Cast(dtype))
    # Folding makes new weights, in the layout of their own.
    return network.requires_grad_(False).to(memory_format=torch.channels_last)
