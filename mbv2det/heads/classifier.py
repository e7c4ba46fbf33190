"""Logits of whole images: the ImageNet classifier of imported weights, as a head."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from mbv2det.backbones.features import Classifier, FeatureSpec, Taps


class ImageClassifier(nn.Module):
    """A backbone's own classifier, fed with its last feature by name.

    Args:
        feature_specs: What the backbone declares.
        num_classes: Of the logits.
        taps: Names of the features read: the backbone's.
        dropout: Share of the averages that training leaves out.
    """

    def __init__(
        self,
        feature_specs: Mapping[str, FeatureSpec],
        num_classes: int,
        *,
        taps: Taps,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.source = taps.classification
        channels = feature_specs[self.source].channels
        self.classifier = Classifier(channels, num_classes, dropout)

    def forward(
        self, features: Mapping[str, Tensor], image_size: tuple[int, int]
    ) -> Float[Tensor, "B K"]:
        """Logits.

        Args:
            features: By name, `source` among them.
            image_size: (H, W) of the network input.
        """
        return self.classifier(features[self.source])

    def class_layers(self) -> list[nn.Module]:
        """Layers whose outputs are logits."""
        return [self.classifier.linear]
