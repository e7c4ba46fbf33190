"""Output stride and dilation: finer feature maps from the same weights.

- `Dilation` replaces the strides beyond the output stride by dilation of the layers that follow.
- `subsample` does the reverse: it selects the cells of the strided network from the finer map.

Source: the algorithme à trous, as in Chen et al. 2018 (arXiv:1606.00915), section 3.1.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mbv2det.backbones.grid import phase
from mbv2det.backbones.layers import Padding


@dataclass
class Dilation:
    """Assigns stride and dilation to the layers of a network, one after the other.

    Attributes:
        output_stride: Total stride that the network must not exceed: 8, 16 or 32.
        stride: Total stride of the layers so far.
        rate: Dilation of the next layer.

    Raises:
        ValueError: For an output stride other than 8, 16 and 32.

    Source: TensorFlow slim `mobilenet.py`, `mobilenet_base`.
    """

    output_stride: int
    stride: int = 1
    rate: int = 1

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {self.output_stride}")

    def step(self, stride: int) -> tuple[int, int]:
        """Returns the (stride, dilation) of the next layer.

        A layer that would exceed the output stride gets stride 1 and the current dilation; the
        layers after it, which now see a finer grid, get a dilation multiplied by its stride.

        Args:
            stride: Nominal stride of the layer.
        """
        rate = self.rate
        if self.stride * stride > self.output_stride:
            self.rate *= stride
            return 1, rate
        self.stride *= stride
        return stride, rate


def subsample(
    x: Float[Tensor, "B C H W"], times: int, padding: Padding
) -> Float[Tensor, "B C h w"]:
    """Returns the values on which several successive stride-2 convolutions would be centred.

    A convolution with stride equals the same convolution without stride, subsampled. The layers
    after it compute the same cells from the subsampled map as they do, with twice the dilation,
    from the full map. A network whose strides were replaced by dilation therefore holds, in these
    cells, everything that the strided network computes.

    Args:
        x: A feature map.
        times: Number of halvings; every 2**times-th cell is kept along each axis.
        padding: Padding rule of those convolutions; at each halving the first cell kept is the
            `phase` of the current size.
    """
    for _ in range(times):
        x = x[..., phase(x.shape[-2], padding) :: 2, phase(x.shape[-1], padding) :: 2]
    return x
