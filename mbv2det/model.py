"""The network: one pass of the backbone, then every head on its features."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone


class Normalize(nn.Module):
    """The first layer of the model, which normalises pixel values as in the weights' training.

    The normalisation is part of the network, so that it is in the exported graph and no caller can
    forget it.

    Args:
        mean: Mean of each channel, as a fraction of full brightness.
        std: Standard deviation of each channel, as a fraction of full brightness.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # In pixel values; not persistent, since PreprocessSpec already travels with the weights.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1) * 255, persistent=False)

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Shaped[Tensor, "B 3 H W"]:
        """Returns normalised images.

        Args:
            images: RGB values 0..255, as integers or floats.
        """
        return (images.to(self.mean.dtype) - self.mean) / self.std


class MultiTaskModel(nn.Module):
    """A backbone and the heads that read its features.

    `forward` returns the same raw outputs in training and in evaluation; losses and postprocessing
    are separate from the model.

    Args:
        normalize: First layer.
        backbone: Network from images to features.
        heads: Heads by task name; each is called with (features, image size).
    """

    def __init__(
        self, normalize: Normalize, backbone: Backbone, heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.normalize: nn.Module = normalize
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> dict[str, Any]:
        """Returns the raw outputs of every head by task name.

        Args:
            images: RGB values 0..255 at the size of the network input, as from `Preprocessor`.
        """
        features = self.backbone(self.normalize(images))
        size = (images.shape[-2], images.shape[-1])
        return {name: head(features, size) for name, head in self.heads.items()}
