"""The network: one backbone pass, then every head on its features."""

from collections.abc import Mapping

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from mbv2det.backbones.backbone import Backbone
from mbv2det.detection.outputs import SSDOutputs
from mbv2det.segmentation.outputs import SegmentationOutputs


class Normalize(nn.Module):
    """Turns uint8 pixels into what the weights were trained on.

    The model's first layer, so that the mean travels in the exported graph and no caller can
    forget it.

    Args:
        mean: Of each channel, as a fraction of full brightness.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # In pixel values; not persistent, since PreprocessSpec already travels with the weights.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1) * 255, persistent=False)

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Shaped[Tensor, "B 3 H W"]:
        """Normalised float images."""
        return (images.to(self.mean.dtype) - self.mean) / self.std


class DensePredictor(nn.Module):
    """A backbone and the heads that read it.

    `forward` gives raw outputs, in training and in evaluation alike; losses and postprocessing
    stand beside the model.

    Args:
        normalize: First layer.
        backbone: Images to named features.
        heads: By task name; each is called with (features, image size).
    """

    def __init__(
        self, normalize: Normalize, backbone: Backbone, heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)

    def forward(
        self, images: Shaped[Tensor, "B 3 H W"]
    ) -> dict[str, SSDOutputs | SegmentationOutputs | Tensor]:
        """Raw outputs by task name; of classification, logits.

        Args:
            images: 0..255, as the `Preprocessor` leaves them.
        """
        features = self.backbone(self.normalize(images))
        size = (images.shape[-2], images.shape[-1])
        return {name: head(features, size) for name, head in self.heads.items()}
