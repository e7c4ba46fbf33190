"""Convolutions fused with their activations, for prediction on a CPU.

PyTorch computes a convolution and its ReLU6 in two passes over the feature map, brings the weights
into oneDNN's layout at every call, and sends small pointwise convolutions to a slower path. oneDNN
does both at once with weights that were brought into its layout before. torch.compile uses the same
operators; here they need no compiler.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.layers import Conv2d, ConvBNAct, ReLU6
from mbv2det.model import MultiTaskModel

# oneDNN's name and arguments of each activation that it can fuse.
_ACTIVATIONS: dict[type[nn.Module] | None, tuple[str, list[float]]] = {
    None: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    ReLU6: ("hardtanh", [0.0, 6.0]),
}


class FusedConv(nn.Module):
    """A convolution and the activation after it in one operation.

    Args:
        conv: Convolution on a CPU; batch norm is folded into it.
        activation: Class of the activation; None for none.
    """

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module] | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.activation = _ACTIVATIONS[activation]
        self._packed: Tensor | None = None

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Returns the activations."""
        conv = self.conv
        x, padding = conv.padded(x) if isinstance(conv, Conv2d) else (x, conv.padding)
        geometry = padding, conv.stride, conv.dilation, conv.groups
        if self._packed is None:  # the best layout depends on the size of the input
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight.contiguous(), *geometry, list(x.shape)
            )
        name, values = self.activation
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, conv.bias, *geometry, name, values, ""
        )


def can_fuse(device: torch.device | str) -> bool:
    """Returns whether convolutions can be fused on a device: on a CPU, where PyTorch has oneDNN."""
    return str(device).startswith("cpu") and torch.backends.mkldnn.is_available()


def fused(network: MultiTaskModel) -> MultiTaskModel:
    """Fuses the convolutions of a network with their activations, in place.

    Args:
        network: Network of `prepared`, on a CPU.

    Returns:
        The same network.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvBNAct) and isinstance(child.norm, nn.Identity):
                activation = type(child.act) if hasattr(child, "act") else None
                if activation in _ACTIVATIONS:
                    setattr(module, name, FusedConv(child.conv, activation))
            elif isinstance(child, nn.Conv2d) and not isinstance(module, ConvBNAct | FusedConv):
                setattr(module, name, FusedConv(child))
    return network
