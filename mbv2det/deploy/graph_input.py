"""The first layer of an exported network: images of the network's size, or of any size.

A graph that resizes takes images of any size and does what `Preprocessor` does, so that a program
that runs it needs no resizing of its own. A format translates the operator
`mbv2det::resize_image`; in PyTorch it calls the preprocessor.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from mbv2det.geometry import Frame, GraphFrame
from mbv2det.preprocess import Preprocessor, PreprocessSpec
from mbv2det.structures import Sample, SampleKey

RESIZE_IMAGE = "mbv2det::resize_image"


@torch.library.custom_op(RESIZE_IMAGE, mutates_args=())
def resize_image(
    images: Tensor, size: Sequence[int], resize: str, mean: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Resizes images as `Preprocessor` does.

    Args:
        images: RGB images, (B, 3, H, W) of uint8.
        size: Size of the network input, (height, width) in pixels.
        resize: Resize rule of the `PreprocessSpec`.
        mean: Mean of each channel in it.

    Returns:
        Images of that size, and (4,) of float32: pixels of the network input per original pixel,
        y and x, and the height and width of the originals.
    """
    red, green, blue = mean
    # Named values: the operator has no argument of the type of a PreprocessSpec.
    spec = PreprocessSpec((size[0], size[1]), resize, (red, green, blue))  # type: ignore[arg-type]
    preprocessor = Preprocessor(spec)
    original = (images.shape[2], images.shape[3])
    resized = [
        preprocessor(Sample(SampleKey(0, 0), image, Frame(original))).image
        for image in images.permute(0, 2, 3, 1).numpy()
    ]
    scale = preprocessor.frame(original).scale
    pixels = torch.stack([torch.from_numpy(image) for image in resized]).permute(0, 3, 1, 2)
    return pixels.contiguous(), torch.tensor([*scale, *original])


@resize_image.register_fake
def _(
    images: Tensor, size: Sequence[int], resize: str, mean: Sequence[float]
) -> tuple[Tensor, Tensor]:
    return images.new_empty(images.shape[0], 3, *size), images.new_empty(4, dtype=torch.float32)


class SizedInput(nn.Module):
    """Images of the network's input size, which pass unchanged.

    Args:
        size: Size of the network input, (height, width) in pixels.
    """

    sides: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("sides", torch.tensor(size, dtype=torch.float32), persistent=False)

    def forward(
        self, images: Shaped[Tensor, "B 3 H W"]
    ) -> tuple[Shaped[Tensor, "B 3 H W"], GraphFrame]:
        """Returns the images and their frame."""
        return images, GraphFrame(self.size, self.sides)


class ResizedInput(nn.Module):
    """Images of any size, which are resized.

    Args:
        spec: Preprocessing of the network.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self, images: UInt8[Tensor, "B 3 H W"]
    ) -> tuple[UInt8[Tensor, "B 3 h w"], GraphFrame]:
        """Returns the images in the network's input size, and their frame."""
        spec = self.spec
        resized, frame = resize_image(images, spec.size, spec.resize, spec.mean)
        original = (images.shape[2], images.shape[3])
        return resized, GraphFrame(original, frame[2:], frame[:2])


def graph_input(spec: PreprocessSpec, *, resizes: bool) -> nn.Module:
    """Returns the first layer of a graph.

    Args:
        spec: Preprocessing of the network.
        resizes: Whether the graph takes images of any size.
    """
    return ResizedInput(spec) if resizes else SizedInput(spec.size)


def dynamic_dimensions(*, resizes: bool) -> dict[int, Any]:
    """Returns the dimensions of a graph's input that are free, by index, for `torch.export`."""
    names = {0: "batch", 2: "height", 3: "width"} if resizes else {0: "batch"}
    return {index: torch.export.Dim(name) for index, name in names.items()}
